"""Forward and backward pass as programs of their own: what the second needs, the first returns.

Under one ``jax.jit`` the compiler sees both passes and may share work between them. Apart, as they are in a training
step's timeline, the forward pass hands its residuals over, and backward over forward is a ratio of two executables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from adcost.suite.vocabulary import Case, Program

PARTS = ("forward", "backward", "both")
Forward = Callable[..., tuple[Any, Any]]
Backward = Callable[[Any, Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Rule:
    """A function with its derivative: ``forward(*inputs)`` gives the result and the residuals, ``backward(residuals,
    cotangent)`` the cotangents of the inputs, and ``function`` is the function as JAX differentiates it by this rule.
    """

    function: Callable[..., Any]
    forward: Forward
    backward: Backward


Make = Callable[..., Rule]


def by_rule(forward: Forward, backward: Backward) -> Make:
    """A rule of one's own, as ``jax.custom_vjp`` takes it."""

    @jax.custom_vjp
    def function(*inputs: Any) -> Any:
        return forward(*inputs)[0]

    function.defvjp(forward, backward)
    return lambda *shapes: Rule(function, forward, backward)


def by_jax(function: Callable[..., Any]) -> Make:
    """The rule that JAX derives: its residuals are what ``jax.vjp`` keeps."""

    def make(*shapes: Any) -> Rule:
        kept = jax.tree.structure(jax.eval_shape(lambda *inputs: jax.vjp(function, *inputs)[1], *shapes))

        def forward(*inputs: Any) -> tuple[Any, Any]:
            result, pull = jax.vjp(function, *inputs)
            return result, jax.tree.leaves(pull)

        def backward(residuals: Any, cotangent: Any) -> tuple[Any, ...]:
            return tuple(jax.tree.unflatten(kept, residuals)(cotangent))

        return Rule(function, forward, backward)

    return make


def batched(make: Make) -> Make:
    """The rule over a leading axis of all inputs."""

    def over_a_batch(*shapes: Any) -> Rule:
        one = make(*(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in shapes))
        return Rule(jax.vmap(one.function), jax.vmap(one.forward), jax.vmap(one.backward))

    return over_a_batch


def program(make: Make, part: str, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> Program:
    """One of ``PARTS`` of a rule as a program; its fact ``residuals`` is what the forward pass hands over, in bytes.

    The result of ``forward`` is held against a reference without its residuals.
    """
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs]
    rule = make(*shapes)
    _, kept = jax.eval_shape(rule.forward, *shapes)
    facts = {"residuals": (float(sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))), "B")}
    if part == "forward":
        return Program(rule.forward, lambda: tuple(inputs), facts=facts, checked=lambda out: out[0])
    if part == "both":

        def both(cotangent: Any, *inputs: Any) -> Any:
            return jax.vjp(rule.function, *inputs)[1](cotangent)

        return Program(both, lambda: (cotangent, *inputs), facts=facts)

    @lru_cache(maxsize=1)
    def residuals() -> Any:
        return jax.jit(rule.forward)(*inputs)[1]

    handed_over = jax.ShapeDtypeStruct(cotangent.shape, cotangent.dtype)
    return Program(rule.backward, lambda: (residuals(), cotangent), facts=facts, shapes=lambda: (kept, handed_over))


def against_forward(case: Case) -> dict[str, Case]:
    """The forward pass of the same method and size, for every other part."""
    if case.word("part") == "forward":
        return {}
    return {"forward": with_part(case, "forward")}


def with_part(case: Case, part: str) -> Case:
    """The same method and size, another part."""
    params = tuple((name, part if name == "part" else value) for name, value in case.params)
    return Case(case.study, case.method, params, case.dtype)
