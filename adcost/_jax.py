"""All that depends on JAX's internals or on its version; everything else of this package uses public names.

The parameters of an equation are JAX's own business: those of ``scan`` changed in 0.11, those of ``remat2`` and others
became attributes of a ``call_hi_primitive`` where ``jax_remat3``, ``jax_scan3`` or ``jax_custom_vjp3`` is set (0.12).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
from jax.extend import core

FLAGS = ("jax_remat3", "jax_scan3", "jax_custom_vjp3")  # new implementations that are not yet the default
DEFAULTS = {name: bool(getattr(jax.config, name)) for name in FLAGS if hasattr(jax.config, name)}
_CLOSED: type[Any] = getattr(core, "ClosedJaxpr", core.Jaxpr)  # from JAX 0.11 on the same class as Jaxpr


def absent_flag(flags: Mapping[str, bool]) -> str | None:
    """Why settings cannot be made: the version of JAX does not know one of them. None if they can."""
    unknown = [name for name in flags if not hasattr(jax.config, name)]
    return f"JAX {jax.__version__} has no {unknown[0]}" if unknown else None


def set_flags(flags: Mapping[str, bool]) -> None:
    """Set those of ``FLAGS`` that this JAX knows: as given, and otherwise as this process began."""
    changed = {name: value for name, value in {**DEFAULTS, **flags}.items() if getattr(jax.config, name) != value}
    for name, value in changed.items():
        jax.config.update(name, value)
    if changed:
        jax.clear_caches()  # what was traced under other settings must not be taken for this


def primitive_name(eqn: Any) -> str:
    """The name of an equation's primitive; of a primitive of the new kind that of its class, as ``Scan3``."""
    hi = eqn.params.get("_prim")
    return eqn.primitive.name if hi is None else type(hi).__name__


def subprograms(eqn: Any) -> list[Any]:
    """The jaxprs, not closed, that an equation runs in its own place, or a loop once a trip; a while loop's: none."""
    name = eqn.primitive.name
    if name == "while":
        return []
    if name == "custom_linear_solve":  # its products and its transposed solve are for derivatives
        return [eqn.params["jaxprs"].solve.jaxpr]
    return [jaxpr for jaxpr, _ in _programs_in(_parameters(eqn))]


def called_program(eqn: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """The program that an equation calls, as a jaxpr that is not closed, and its constants; None if it calls none."""
    return next(_programs_in(_parameters(eqn)), None)


BRANCHES_AND_LOOPS = ("cond", "while", "scan", "Scan3")


def evaluated(eqn: Any, values: Sequence[Any]) -> Any:
    """What an equation gives for these operands."""
    return eqn.primitive.bind(*values, **eqn.params)


def contracted_size(eqn: Any) -> int:
    """Over how many products a ``dot_general`` sums for each entry of its result."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return prod(eqn.invars[0].aval.shape[axis] for axis in contracted)


def wants_vectors(eqn: Any) -> bool:
    """Does an ``svd`` compute the vectors as well?"""
    return bool(eqn.params["compute_uv"])


def scan_length(eqn: Any) -> int | None:
    """Trips of a scan, of either kind; None if the equation is none."""
    if eqn.primitive.name == "scan":
        return int(eqn.params["length"])
    if primitive_name(eqn) == "Scan3":
        return int(eqn.params["_prim"].length)
    return None


class While(NamedTuple):
    """A while loop: condition and body, each with the number of its constants."""

    cond: Any
    cond_consts: int
    body: Any
    body_consts: int


def while_parts(eqn: Any) -> While:
    """The parts of a ``while`` equation."""
    params = eqn.params
    cond, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    return While(cond, params["cond_nconsts"], body, params["body_nconsts"])


def scope(eqn: Any) -> str:
    """The ``jax.named_scope`` in which an equation was written, outermost first."""
    return str(eqn.source_info.name_stack)


def output_features(eqn: Any) -> int:
    """Output features of a ``conv_general_dilated``: an axis of its kernel."""
    return int(eqn.invars[1].aval.shape[eqn.params["dimension_numbers"].rhs_spec[0]])


def _parameters(eqn: Any) -> Mapping[str, Any]:
    """An equation's parameters; a primitive of the new kind keeps them as attributes."""
    hi = eqn.params.get("_prim")
    return eqn.params if hi is None else vars(hi)


def _programs_in(params: Mapping[str, Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            program = item.jaxpr if isinstance(item, jax.stages.Traced) else item
            if isinstance(program, _CLOSED):
                yield program.jaxpr, tuple(program.consts)
            elif isinstance(program, core.Jaxpr):
                yield program, ()
