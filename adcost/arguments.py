"""The arguments by which a function is differentiated: ``argnums``, and what of them has derivatives."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial, wraps
from itertools import zip_longest
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import with_sharding_constraint as constrained

from adcost.checkpointing.values import chosen, is_array, is_inexact, merged, spread
from adcost.targets.compiling import sharding_of

Argnums = int | Sequence[int]


def numbered(args: Sequence[Any], argnums: Any) -> Argnums:
    """``argnums`` as an integer or a tuple of them, counted from the first argument.

    Raises
    ------
    ValueError
        If there is no such argument, or one is asked for twice.
    """
    try:
        numbers = [index(i) for i in (argnums if isinstance(argnums, list | tuple) else (argnums,))]
    except TypeError:
        raise ValueError(f"argnums={argnums!r}: give the number of an argument, or several in a tuple") from None
    if not numbers or not all(-len(args) <= i < len(args) for i in numbers):
        raise ValueError(f"argnums {argnums} ask for an argument that is not there: {len(args)} were given")
    found = tuple(i % len(args) for i in numbers)
    if len({*found}) < len(found):
        raise ValueError(f"argnums {argnums} ask for an argument twice")
    return found if isinstance(argnums, list | tuple) else found[0]


def by_argnums(args: Sequence[Any], argnums: Argnums) -> Any:
    """The argument of this number; of several a tuple."""
    numbers = numbered(args, argnums)
    return args[numbers] if isinstance(numbers, int) else tuple(args[i] for i in numbers)


def replaced(args: Sequence[Any], argnums: Argnums, by: Any) -> tuple[Any, ...]:
    """The arguments, those of these numbers replaced."""
    numbers = numbered(args, argnums)
    places = {numbers: by} if isinstance(numbers, int) else dict(zip(numbers, by, strict=True))
    return tuple(places.get(i, arg) for i, arg in enumerate(args))


def differentiable(args: Sequence[Any], argnums: Argnums) -> tuple[Any, ...]:
    """The arguments; numbers of Python to differentiate by as arrays, so that they are no constants.

    Beside functions and flags, as in a model of Equinox, numbers are settings: there they stay.

    Raises
    ------
    ValueError
        If nothing of what is differentiated by has a derivative.
    """
    by = by_argnums(args, argnums)
    if not any(_is_number(leaf) or (is_array(leaf) and is_inexact(leaf)) for leaf in jax.tree.leaves(by)):
        raise ValueError(f"nothing in argnums {argnums} has a derivative: integers and functions have none")
    if not all(is_array(leaf) or _is_number(leaf) for leaf in jax.tree.leaves(by)):
        return tuple(args)
    return replaced(args, argnums, jax.tree.map(lambda leaf: jnp.asarray(leaf) if _is_number(leaf) else leaf, by))


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, float | complex)


def jitted(f: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit(f)`` of arguments that may hold more than arrays: that stays what it is, and must be hashable."""

    @partial(jax.jit, static_argnums=0)
    def of_arrays(rest: tuple[Any, tuple[Any, ...], tuple[bool, ...]], given: Sequence[Any]) -> Any:
        tree, leaves, mask = rest
        return f(*jax.tree.unflatten(tree, merged(given, leaves, mask)))

    def run(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        mask = [is_array(leaf) for leaf in leaves]
        others = [None if m else leaf for leaf, m in zip(leaves, mask, strict=True)]
        for other in others:
            if not isinstance(other, Hashable):
                raise ValueError(f"an argument holds a {type(other).__name__}, which is no key for a compiled program")
        return of_arrays((tree, tuple(others), tuple(mask)), chosen(leaves, mask))

    return run


def gradient(loss: Callable[..., Any], argnums: Argnums = 0, like: Sequence[Any] | None = None) -> Callable[..., Any]:
    """``jax.grad(loss, argnums)`` of arguments that may hold more than numbers: None stands for what has no derivative.

    So models can be given that hold functions and sizes beside their weights, as those of Equinox. Of what is sharded
    in the arguments ``like`` these the gradient is sharded, too: otherwise a partitioner may leave it whole everywhere.
    """
    shardings = [] if like is None else [sharding_of(leaf) for leaf in jax.tree.leaves(by_argnums(like, argnums))]

    @wraps(loss, assigned=(), updated=())  # its arguments have the loss's names
    def run(*args: Any) -> Any:
        args = differentiable(args, argnums)
        leaves, tree = jax.tree.flatten(by_argnums(args, argnums))
        mask = [is_array(leaf) and is_inexact(leaf) for leaf in leaves]

        def of_inexact(values: Any) -> Any:
            return loss(*replaced(args, argnums, jax.tree.unflatten(tree, merged(values, leaves, mask))))

        found = spread(jax.grad(of_inexact)(chosen(leaves, mask)), mask)
        pairs = zip_longest(found, shardings)
        return jax.tree.unflatten(tree, [g if g is None or s is None else constrained(g, s) for g, s in pairs])

    return run
