"""Jacobians and Hessians within a memory: mode and chunk that fit, with the least work: ``jacobian``, ``hessian``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from adcost import _jax
from adcost.arguments import Argnums, by_argnums, differentiable, jitted, numbered, replaced
from adcost.checkpointing.rewriting import checkpointed, of_arrays
from adcost.checkpointing.values import is_array
from adcost.display import in_words
from adcost.plan import Plan, counted_of, memory_bytes, planned, traced
from adcost.targets import Target, named
from adcost.targets.elsewhere import CompilerFailed

Mode = Literal["forward", "reverse"]
CLOSE = 4  # of the fewest passes that fit, the part that is taken for close


@dataclass(frozen=True, eq=False)
class Chunked:
    """A Jacobian by a mode, so many columns (rows in reverse mode) at a time.

    Attributes
    ----------
    apply
        ``apply(*args)`` is the Jacobian, as ``jax.jacrev`` gives it.
    plan
        What it takes.
    mode
        ``"forward"``: products with tangents; ``"reverse"``: with cotangents.
    chunk
        How many of these are made at a time; ``seeds`` is how many there are.
    code
        What computes the same, to paste.
    """

    apply: Callable[..., Any]
    plan: Plan
    mode: Mode
    chunk: int
    seeds: int
    code: str

    def __str__(self) -> str:
        return f"{self.mode} mode, {self.chunk} of {self.seeds} at a time\n{self.plan}"


def jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: Argnums = 0,
    memory: int | float | str | None = None,
    target: str | Target = "cpu",
) -> Chunked:
    """The Jacobian of ``f`` by the mode and the chunk that fit into a memory, with the least work.

    Parameters
    ----------
    f
        A function of arrays, to an array or a pytree of them.
    *args
        Its arguments, or their shapes as ``jax.ShapeDtypeStruct``.
    argnums
        The positional arguments by which it is differentiated.
    memory
        In bytes or as ``"16 GiB"``; by default the memory of the target.
    target
        A name of ``adcost.TARGETS``.

    Returns
    -------
    Chunked
        ``.apply(*args)`` computes it. The compiler is asked for chunks that make one pass over the function, two, four
        and so on, and then in between, to a quarter: memory does not grow evenly with the chunk.

    Raises
    ------
    ValueError
        If neither mode fits, a column or a row at a time; the message says what the least is.

    References
    ----------
    jax #11319, #787 and #215: what people ask for.
    """
    return _chosen({"f": f, "adcost.checkpointed(f)": checkpointed(f)}, args, argnums, memory, named(target))


def hessian(
    f: Callable[..., Any],
    *args: Any,
    argnums: Argnums = 0,
    memory: int | float | str | None = None,
    target: str | Target = "cpu",
) -> Chunked:
    """The Hessian of a scalar ``f``, as the ``jacobian`` of its gradient: forward or reverse over reverse mode.

    Parameters and errors are those of ``jacobian``; ``.apply(*args)`` gives what ``jax.hessian`` gives.
    """
    ways: dict[str, Callable[..., Any]] = {"f": f, "adcost.checkpointed(f)": checkpointed(f)}
    gradients = {f"jax.grad({code}, {argnums})": jax.grad(way, argnums) for code, way in ways.items()}
    return _chosen(gradients, args, argnums, memory, named(target))


def chunked_jacobian(
    f: Callable[..., Any], argnums: Argnums = 0, mode: str = "reverse", chunk: int | None = None
) -> Callable[..., Any]:
    """The Jacobian of a function, ``chunk`` columns (rows in reverse mode) at a time; all at once without it.

    Slices of the identity are made where they are needed, and each product is written into its place: beside the result
    it holds what a chunk takes.

    Returns
    -------
    ``jacobian(*args)``, as ``jax.jacfwd(f, argnums)`` or ``jax.jacrev(f, argnums)`` gives it.

    Raises
    ------
    ValueError
        If the chunk is below 1 or the mode is none.
    """
    if mode not in ("forward", "reverse"):
        raise ValueError(f"mode={mode!r} is none: choose forward or reverse")
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk of {chunk}: at least 1 at a time")

    chosen: Mode = "forward" if mode == "forward" else "reverse"

    def run(*args: Any) -> Any:
        args = differentiable(args, argnums)
        seeds = seeds_of(f, args, argnums)[chosen]
        return _in_chunks(f, args, argnums, chosen, min(chunk or seeds, seeds))

    return run


def seeds_of(f: Callable[..., Any], args: Sequence[Any], argnums: Argnums) -> dict[Mode, int]:
    """How many products make the Jacobian, by mode: the numbers that go in, and those that come out."""
    return {"forward": _numbers(by_argnums(args, argnums)), "reverse": _numbers(_result(f, args))}


def _result(f: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Shapes and dtypes of what a call gives."""
    run, given = of_arrays(f, args, {})
    return jax.eval_shape(run, *given)


def _numbers(tree: Any) -> int:
    return sum(prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def _in_chunks(f: Callable[..., Any], args: Sequence[Any], argnums: Argnums, mode: Mode, chunk: int) -> Any:
    """The Jacobian, as trees: from one matrix, filled by one chunk of its columns or rows after another."""
    x, unravel = ravel_pytree(by_argnums(args, argnums))

    def of_flat(x: Any) -> Any:
        return ravel_pytree(f(*replaced(args, argnums, unravel(x))))[0]

    if mode == "forward":
        y = jax.eval_shape(of_flat, x)
        matrix = _filled(lambda t: jax.jvp(of_flat, (x,), (t,))[1], x, y, chunk, 1)
    else:
        y, pull = jax.vjp(of_flat, x)
        matrix = _filled(lambda ct: pull(ct)[0], y, x, chunk, 0)
    return _as_trees(matrix, f, args, argnums, mode)


def _filled(product: Callable[[Any], Any], seed: Any, result: Any, chunk: int, axis: int) -> Any:
    """A matrix of which a product with the i-th unit vector is the i-th column (axis 1) or row (axis 0)."""
    n, m = seed.size, result.size
    push = jax.vmap(product, out_axes=axis)

    def fill(k: Any, matrix: Any) -> Any:
        start = jnp.minimum(k * chunk, n - chunk)  # the last chunk makes some again
        units = (start + jnp.arange(chunk)[:, None] == jnp.arange(n)).astype(seed.dtype)
        return lax.dynamic_update_slice_in_dim(matrix, push(units).astype(matrix.dtype), start, axis)

    shape = (m, n) if axis else (n, m)
    if chunk == n:
        return push(jnp.eye(n, dtype=seed.dtype)).astype(result.dtype)
    return _jax.fori_loop(0, -(-n // chunk), fill, jnp.zeros(shape, result.dtype))


def _as_trees(matrix: Any, f: Callable[..., Any], args: Sequence[Any], argnums: Argnums, mode: Mode) -> Any:
    """The matrix as JAX has it: in each leaf of the result the tree of what it is differentiated by.

    Forward mode gives it in the result's type, reverse mode in that of what it is differentiated by.
    """
    ins, in_tree = jax.tree.flatten(by_argnums(args, argnums))
    outs, out_tree = jax.tree.flatten(_result(f, args))
    rows, columns = np.cumsum([0, *map(_numbers, outs)]), np.cumsum([0, *map(_numbers, ins)])

    def block(i: int, j: int) -> Any:
        part = matrix[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        dtype = outs[i].dtype if mode == "forward" else ins[j].dtype
        return part.reshape(*np.shape(outs[i]), *np.shape(ins[j])).astype(dtype)

    rows_of = [[block(i, j) for j in range(len(ins))] for i in range(len(outs))]
    return jax.tree.unflatten(out_tree, [jax.tree.unflatten(in_tree, row) for row in rows_of])


@dataclass(frozen=True)
class _Way:
    """A way to a Jacobian, all at once, as a program: counted, but not yet compiled."""

    mode: Mode
    f: Callable[..., Any]
    code: str
    flops: int


def _chosen(
    functions: Mapping[str, Callable[..., Any]], args: Sequence[Any], argnums: Argnums, memory: Any, target: Target
) -> Chunked:
    """Of functions that give the same, by their code: the way that fits with the least work."""
    budget = memory_bytes(memory, target)
    argnums, args = numbered(args, argnums), differentiable(args, argnums)
    first, *_ = functions.values()
    _refuse_types(by_argnums(args, argnums), _result(first, args))
    ways, refused = [], []
    for mode in ("forward", "reverse"):
        for code, f in functions.items():
            try:
                program = traced(chunked_jacobian(f, argnums, mode), *args)
            except (TypeError, ValueError, NotImplementedError) as error:
                refused.append(_jax.first_line(error))
                continue
            ways.append(_Way(mode, f, code, counted_of(program).flops))
    if not ways:
        raise ValueError(f"there is no Jacobian in either mode: {refused[0]}")
    found: list[Chunked] = []
    for way in sorted(ways, key=lambda way: way.flops):
        best = min((made.plan.flops for made in found if made.plan.fits is not False), default=None)
        if best is not None and best <= way.flops:
            break
        found += _of_a_way(way, args, argnums, target, budget)
    if not found:
        raise CompilerFailed(f"the compiler of {target.name} refused every way to the Jacobian")
    fitting = [made for made in found if made.plan.fits is not False]
    if not fitting:
        least = min(found, key=lambda made: made.plan.total)
        raise ValueError(
            f"no Jacobian fits into {in_words(budget or 0)} on {target.name}: "
            f"{least.mode} mode, {least.chunk} at a time, takes {in_words(least.plan.total)}"
        )
    return min(fitting, key=lambda made: (made.plan.flops, made.plan.total))


def _of_a_way(
    way: _Way, args: Sequence[Any], argnums: Argnums, target: Target, budget: int | None
) -> Iterator[Chunked]:
    """Jacobians: in one pass, then in twice as many until one fits, then between that and the last that did not."""
    seeds = max(seeds_of(way.f, args, argnums)[way.mode], 1)
    few, many, passes = 0, seeds + 1, 1  # passes that are too few, that will do
    while many - few > max(1, few // CLOSE) and passes <= seeds:
        chunk = -(-seeds // passes)
        run = chunked_jacobian(way.f, argnums, way.mode, chunk)
        fits = False
        with suppress(CompilerFailed):
            plan = planned(traced(run, *args), target, budget)
            said = "" if chunk == seeds else f", chunk={chunk}"
            code = f"adcost.chunked_jacobian({way.code}, {argnums}, {way.mode!r}{said})"
            yield Chunked(jitted(run), plan, way.mode, chunk, seeds, code)
            fits = plan.fits is not False
        few, many = (few, passes) if fits else (passes, many)
        passes = min(2 * passes, seeds) if many > seeds and few < seeds else (few + many) // 2


def _refuse_types(x: Any, result: Any) -> None:
    """Integers have no derivative; of complex numbers JAX's own Jacobians ask whether the function is holomorphic."""
    leaves = jax.tree.leaves((x, result))
    for leaf in leaves:
        if not is_array(leaf):
            raise ValueError(f"a {type(leaf).__name__} among what is differentiated by: split it from the arrays")
    types = [leaf.dtype for leaf in leaves]
    if any(jnp.issubdtype(dtype, np.complexfloating) for dtype in types):
        raise ValueError("complex numbers: use jax.jacfwd or jax.jacrev with holomorphic=True, or split them in two")
    whole = [dtype for dtype in types if not jnp.issubdtype(dtype, np.inexact)]
    if whole:
        raise ValueError(
            f"{whole[0]} has no derivative: give it as an argument of its own, or leave it out of the result"
        )
