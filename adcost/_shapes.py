"""Shapes in signatures: jaxtyping's where it is installed, which the library does without."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from jax import Array

__all__ = ["Array", "Float"]

if TYPE_CHECKING or find_spec("jaxtyping") is not None:
    from jaxtyping import Float
else:

    class _Plain:
        """An array of any shape: ``Float[Array, "m n"]`` is ``Array``."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item[0]

    Float = _Plain
