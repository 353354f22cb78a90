"""Which mode for this function? Task 1 of the lecture, answered from the program's text, without a run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adcost import _jax
from adcost.rulers import count as counts

Mode = Literal["forward", "reverse", "either", "neither"]
CLOSE = 1.5  # costs within this factor of each other: what a flop costs differs by more between operations
CLOSE_BESIDE = 2.5  # the same, of what the products cost where the function itself costs more
BYTES = 64  # moved for one flop: so few flops that only bytes moved can decide
FEW, MANY = 1, 1000  # trips that loops are given which only the data end: advice must be the same for both


@dataclass(frozen=True)
class ModeAdvice:
    """Which mode to choose for a Jacobian, and what the choice rests on.

    Attributes
    ----------
    mode
        The cheaper one, or the only one that is possible; ``"either"`` where they cost about the same, ``"neither"``
        where JAX refuses both.
    why
        The reason, in a line.
    forward_flops, reverse_flops
        Flops of the whole Jacobian by each mode; None where it is not possible.
    forward_bytes, reverse_bytes
        Bytes that its operations read and write, were none fused with another.
    residual_bytes
        Bytes that reverse mode hands from the forward to the backward pass; what the backward pass computes again
        under ``jax.checkpoint`` comes on top while it runs. None where reverse mode is not possible.
    caveats
        What makes the figures bounds or assumptions, a line each; empty if they are exact.
    """

    mode: Mode
    why: str
    forward_flops: int | None
    reverse_flops: int | None
    forward_bytes: int | None
    reverse_bytes: int | None
    residual_bytes: int | None
    caveats: tuple[str, ...] = ()


def which_mode(f: Callable[..., Any], *args: Any, argnums: int | Sequence[int] = 0, **kwargs: Any) -> ModeAdvice:
    """Forward or reverse mode for the Jacobian of ``f``? Nothing is run: both programs are traced and counted.

    Parameters
    ----------
    f
        The function.
    *args, **kwargs
        Its arguments, as ``jax.jacrev(f)`` takes them: pytrees of arrays, numbers, flags, functions; arrays may be
        ``jax.ShapeDtypeStruct``.
    argnums
        The positional arguments with respect to which it is differentiated.

    Returns
    -------
    ModeAdvice
        The mode and why, the flops and the bytes moved of the Jacobian by each, what reverse mode stores.

    Raises
    ------
    ValueError
        If an argument to differentiate by holds an integer or a key, or there is no such argument.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed. 2008, chapter 3: d tangents against m cotangents.
    """
    g, x, rest = _of_its_arrays(f, args, kwargs, (argnums,) if isinstance(argnums, int) else tuple(argnums))
    out = jax.tree.leaves(jax.eval_shape(g, x, rest))
    refused = _refused(x, out)
    forward = _products(_tangents(g), x, rest, x) if "forward" not in refused else refused["forward"]
    reverse = _products(_cotangents(g), x, rest, out) if "reverse" not in refused else refused["reverse"]
    works = {
        name: [_work(way, trips) for trips in (FEW, MANY)]
        for name, way in (("forward", forward), ("reverse", reverse))
        if not isinstance(way, str)
    }
    mode, why = _cheaper(works) if len(works) == 2 else _possible(works, forward, reverse)
    kept = None
    if "reverse" in works:
        kept = counts.kept_bytes(jax.make_jaxpr(lambda x, rest: jax.vjp(lambda x: g(x, rest), x)[1])(x, rest))
    pushed, pulled = (works[name][0] if name in works else None for name in ("forward", "reverse"))
    return ModeAdvice(
        mode,
        why,
        None if pushed is None else pushed.flops,
        None if pulled is None else pulled.flops,
        None if pushed is None else pushed.moved,
        None if pulled is None else pulled.moved,
        kept,
        tuple(dict.fromkeys(caveat for work in (pushed, pulled) if work is not None for caveat in work.caveats)),
    )


Function = Callable[[Sequence[Any], Sequence[Any]], Any]
Each = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]  # makes one product, or a batch of them
Product = Callable[[Any, Any, Any, Each], Any]


class _Products(NamedTuple):
    """Programs that make one, two or three of a Jacobian's products, and how many products make it whole."""

    programs: Mapping[int, Any]
    seeds: int
    seed_bytes: int


class _Work(NamedTuple):
    """What a whole Jacobian takes: in all, and its products alone, where bytes moved stand as so many flops."""

    seeds: int
    total: float
    products: float
    flops: int
    moved: int
    caveats: tuple[str, ...]


def _of_its_arrays(
    f: Callable[..., Any], args: Sequence[Any], kwargs: Any, argnums: tuple[int, ...]
) -> tuple[Function, list[Any], list[Any]]:
    """``f`` of the arrays that it is differentiated by and of those of which only shapes are given; both as shapes.

    Every other argument is closed over as it is, so that the program may depend on its value.
    """
    if not all(-len(args) <= i < len(args) for i in argnums):
        raise ValueError(f"argnums {argnums} ask for an argument that is not there: {len(args)} were given")
    chosen, tree = jax.tree.flatten([args[i] for i in argnums])
    others, other_tree = jax.tree.flatten(([None if i in argnums else arg for i, arg in enumerate(args)], kwargs))
    for leaf in chosen:
        if _is_number(leaf) and not _is_inexact(leaf):
            raise ValueError(
                f"an argument to differentiate by holds {jax.dtypes.result_type(leaf)}, which has no derivative: "
                "pass it as an argument of its own"
            )

    def g(x: Sequence[Any], rest: Sequence[Any]) -> Any:
        mine, theirs = iter(x), iter(rest)
        by = jax.tree.unflatten(tree, [next(mine) if _is_number(a) else a for a in chosen])
        whole, keywords = jax.tree.unflatten(other_tree, [next(theirs) if _is_shape(a) else a for a in others])
        for i, arg in zip(argnums, by, strict=True):
            whole[i] = arg
        return f(*whole, **keywords)

    return g, [_shape(a) for a in chosen if _is_number(a)], [_shape(a) for a in others if _is_shape(a)]


def _refused(x: Sequence[Any], out: Sequence[Any]) -> dict[str, str]:
    """The modes that JAX refuses for the types of inputs and outputs alone, and why."""
    refused = {}
    complex_in, complex_out = ([jnp.issubdtype(a.dtype, np.complexfloating) for a in t] for t in (x, out))
    holomorphic = all(complex_in) and all(complex_out)
    if any(complex_in) and not holomorphic:
        refused["forward"] = "jax.jacfwd takes no complex input, unless all inputs and outputs are"
    if any(complex_out) and not holomorphic:
        refused["reverse"] = "jax.jacrev takes no complex output, unless all inputs and outputs are"
    if not all(map(_is_inexact, out)):
        refused["reverse"] = "jax.jacrev takes no integers among the outputs"
    if any(jnp.issubdtype(a.dtype, jax.dtypes.extended) for a in out):
        refused = dict.fromkeys(("forward", "reverse"), "JAX takes no keys among the outputs of a Jacobian")
    return refused


def _tangents(g: Function) -> Product:
    def run(x: Any, rest: Any, seeds: Any, each: Each) -> Any:
        def pushed(seed: Any) -> Any:
            found = jax.jvp(lambda x: g(x, rest), (x,), (seed,))[1]
            return [t for t in jax.tree.leaves(found) if _is_inexact(t)]

        return each(pushed)(seeds)

    return run


def _cotangents(g: Function) -> Product:
    def run(x: Any, rest: Any, seeds: Any, each: Each) -> Any:
        value, pull = jax.vjp(lambda x: g(x, rest), x)
        return each(lambda seed: pull(jax.tree.unflatten(jax.tree.structure(value), seed))[0])(seeds)

    return run


def _products(product: Product, x: Any, rest: Any, seed: Sequence[Any]) -> _Products | str:
    """A mode's products of a function, one and in batches; if JAX refuses one, why."""

    def traced(many: int) -> Any:
        each: Each = (lambda product: product) if many == 1 else jax.vmap
        batch = [jax.ShapeDtypeStruct(a.shape if many == 1 else (many, *a.shape), a.dtype) for a in seed]
        return jax.make_jaxpr(lambda x, rest, seeds: product(x, rest, seeds, each))(x, rest, batch)

    try:
        programs = {1: traced(1)}
    except Exception as error:  # the function itself could be traced, so this is JAX's refusal
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    if counts.count_jaxpr(programs[1].jaxpr, assumed=1)["custom_lin"]:  # raises only where it is run
        return "a function with jax.custom_vjp has no forward mode"
    with suppress(Exception):  # what cannot go in a batch goes one by one
        programs |= {2: traced(2), 3: traced(3)}
    size = sum(prod(a.shape) * a.dtype.itemsize for a in seed)
    return _Products(programs, sum(prod(a.shape) for a in seed), size)


def _work(products: _Products, trips: int) -> _Work:
    """What all products take: what batches of two and three share is done once, the rest goes by their number."""
    made = {
        many: counts.count_jaxpr(_jax.live(closed), closed.consts, assumed=trips)
        for many, closed in products.programs.items()
    }

    def of_all(one: int, two: int = 0, three: int = 0) -> tuple[int, int]:
        each = three - two if len(made) == 3 else one
        return (two - 2 * each if len(made) == 3 else 0), each * products.seeds

    once, each = of_all(*(c.flops for c in made.values()))
    moved_once, moved = of_all(*(c.moved for c in made.values()))
    moved += products.seeds * products.seed_bytes
    by_number = each + moved / BYTES
    total = once + moved_once / BYTES + by_number
    return _Work(products.seeds, total, by_number, once + each, moved_once + moved, made[1].caveats)


def _possible(works: Mapping[str, Any], forward: Any, reverse: Any) -> tuple[Mode, str]:
    """The mode that JAX does not refuse."""
    if "forward" in works:
        return "forward", f"the only mode that is possible: {reverse}"
    if "reverse" in works:
        return "reverse", f"the only mode that is possible: {forward}"
    return "neither", f"forward: {forward}; reverse: {reverse}"


def _cheaper(works: Mapping[str, Sequence[_Work]]) -> tuple[Mode, str]:
    """The mode that takes less, however often loops run."""
    if min(work[0].seeds for work in works.values()) == 0:
        return "either", "there is nothing to differentiate"
    found = {_less(forward, reverse) for forward, reverse in zip(works["forward"], works["reverse"], strict=True)}
    if len(found) > 1:
        return "either", "which is cheaper depends on how often a loop runs, and only the data know that"
    (mode,) = found
    forward, reverse = works["forward"][0], works["reverse"][0]
    factor = max(forward.total, reverse.total) / max(min(forward.total, reverse.total), 1)
    if mode == "either":
        return mode, f"they cost the same within a factor of {factor:.2g}"
    return mode, f"{factor:.3g} times cheaper by flops and bytes moved"


def _less(forward: _Work, reverse: _Work) -> Mode:
    """The mode that takes less in all, or by its products where both evaluate a dear function besides."""
    in_all = advised(forward.total, reverse.total)
    return advised(forward.products, reverse.products, CLOSE_BESIDE) if in_all == "either" else in_all


def advised(forward: float, reverse: float, close: float = CLOSE) -> Mode:
    """The mode that costs less, unless the costs are within a factor of ``close``."""
    if forward * close < reverse:
        return "forward"
    if reverse * close < forward:
        return "reverse"
    return "either"


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _is_number(leaf: Any) -> bool:
    """Is a leaf an array, a number or the shape of an array?"""
    return isinstance(leaf, bool | int | float | complex | np.generic | np.ndarray | jax.Array) or _is_shape(leaf)


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jax.dtypes.result_type(leaf), np.inexact))


def _shape(leaf: Any) -> Any:
    plain = isinstance(leaf, float | complex) and not isinstance(leaf, np.generic)
    weak = plain or getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(np.shape(leaf), jax.dtypes.result_type(leaf), weak_type=weak)
