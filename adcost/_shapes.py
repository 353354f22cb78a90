"""Shapes in signatures: jaxtyping's where it is installed, which the library does without.

Arrays are JAX's or NumPy's: the functions here take both.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

__all__ = ["Array", "Float", "Inexact"]

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Inexact
else:
    Array = jax.Array | np.ndarray
    if find_spec("jaxtyping") is not None:
        from jaxtyping import Float, Inexact
    else:

        class Float:
            """An array of any shape: ``Float[Array, "m n"]`` is ``Array``."""

            def __class_getitem__(cls, item: Any) -> Any:
                return item[0]

        Inexact = Float
