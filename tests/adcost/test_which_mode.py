"""Advice on the programs that people bring, and on programs put together at random, against compiled flops."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from adcost import which_mode
from adcost.rulers.count import count
from tests.field import bodies, linear_algebra, loops, modes

CASES = [*modes.CASES, *loops.CASES, *bodies.CASES, *linear_algebra.CASES]
MODES = [case for case in CASES if "mode" in case.right]
FLOPS = [case for case in CASES if "flops" in case.right]


@pytest.fixture(autouse=True)
def float32():
    """As people run it."""
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("case", MODES, ids=lambda case: case.name)
def test_the_mode_is_right_on_what_people_bring(case):
    for package in case.needs:
        pytest.importorskip(package)
    f, args = case.make()
    advice = which_mode(f, *args)
    assert advice.mode == case.right["mode"], advice
    if case.right.get("only"):
        impossible = advice.reverse_flops if advice.mode == "forward" else advice.forward_flops
        assert impossible is None
        assert advice.why.startswith("the only mode that is possible: ")
        assert (advice.residual_bytes is None) == (advice.mode == "forward")


@pytest.mark.parametrize("case", FLOPS, ids=lambda case: case.name)
def test_the_order_of_flops_is_right_on_what_people_bring(case):
    f, args = case.make()
    counted = count(f, *args)
    right = case.right["flops"]
    assert right / 4 <= counted.flops <= max(4 * right, 1)
    assert counted[case.right["primitive"]] >= 1
    assert not counted.unknown


X = jnp.linspace(1, 2, 8)


def test_an_integer_to_differentiate_by_is_refused_in_a_line():
    with pytest.raises(ValueError, match="holds int32, which has no derivative: pass it as an argument of its own"):
        which_mode(lambda p: jnp.sum(p["a"][p["i"]]), {"a": X, "i": jnp.arange(3)})
    with pytest.raises(ValueError, match="1 were given"):
        which_mode(jnp.sum, X, argnums=1)


def test_arguments_are_taken_as_jacrev_takes_them():
    def f(x, n, *, scale, kind="tanh"):
        return scale * sum(getattr(jnp, kind)(x) ** k for k in range(n))[:2]

    assert which_mode(f, X, 3, scale=2.0).mode == "reverse"
    assert which_mode(f, X, 3, scale=jax.ShapeDtypeStruct((), "float32"), kind="sin").mode == "reverse"
    both = which_mode(lambda a, n, b: jnp.sum(a * b), X, 3, X, argnums=(0, -1))
    assert both.mode == "reverse"
    assert both.residual_bytes == 0


def test_where_neither_mode_is_possible_it_says_so():
    @jax.custom_vjp
    def one_way(x):
        return x

    one_way.defvjp(lambda x: (x, None), lambda _, g: (g,))

    def until(x):
        return lax.while_loop(lambda x: jnp.sum(x) < 100, lambda x: 2 * x, x)

    advice = which_mode(lambda x: one_way(until(x)), X)
    assert advice.mode == "neither"
    assert "custom_vjp" in advice.why
    assert "Reverse-mode" in advice.why
    assert (advice.forward_flops, advice.reverse_flops, advice.residual_bytes) == (None, None, None)


def test_what_jax_takes_is_taken_and_what_it_refuses_is_refused():
    mixed = {"a": jnp.ones(3), "b": jnp.ones(3, "complex64")}
    assert which_mode(lambda t: t["a"] * t["b"], mixed).mode == "neither"
    assert which_mode(lambda z: (z * z, jnp.abs(z)), jnp.ones(3, "complex64")).mode == "neither"
    assert which_mode(lambda x: (x * 2, jax.random.key(0)), X).mode == "neither"
    weak = which_mode(lambda s: lax.fori_loop(0, 3, lambda _, c: c * s, jnp.ones(3, jnp.bfloat16)), 2.0)
    assert weak.mode == "forward"


def test_a_rule_that_raises_without_a_word_is_a_refusal():
    @jax.custom_jvp
    def unfinished(x):
        return x

    @unfinished.defjvp
    def _(primals, tangents):
        raise NotImplementedError

    assert (
        which_mode(lambda x: unfinished(x).sum(), X).why == "forward: NotImplementedError; reverse: NotImplementedError"
    )


def test_complex_functions_of_complex_numbers_have_both_modes():
    matrix = jnp.ones((3, 40), "complex64")
    assert which_mode(lambda z: matrix @ z, jnp.ones(40, "complex64")).mode == "reverse"


def test_what_is_not_known_is_said():
    assert which_mode(lambda a: jnp.sum(jax.scipy.special.gammainc(a, 2.0)), X).caveats
    solve = which_mode(lambda b: jax.scipy.sparse.linalg.cg(lambda v: 2 * v, b)[0], X)
    assert any("assumed" in caveat or "at most" in caveat for caveat in solve.caveats)


# Programs put together at random: parts of R^n -> R^n in turn, each in a loop, a branch or a call.

MAPS = {
    "tanh": lambda x, w: jnp.tanh(x),
    "dense": lambda x, w: w @ x,
    "narrow": lambda x, w: jnp.tile(x[: max(1, len(x) // 4)], 4)[: len(x)],
    "cumsum": lambda x, w: jnp.cumsum(x),
    "softmax": lambda x, w: jax.nn.softmax(x) * x,
    "poly": lambda x, w: x**3 - 2 * x**2 + x,
    "gather": lambda x, w: x[jnp.arange(len(x))[::-1]] * 2.0,
    "fft": lambda x, w: jnp.real(jnp.fft.fft(x)),
    "outer": lambda x, w: jnp.outer(x, x) @ x,
    "where": lambda x, w: jnp.where(x > 0, x * x, jnp.sin(x)),
    "normed": lambda x, w: x / jnp.sqrt(1 + jnp.sum(x * x)),
}


def times(many):
    """A function so many times, written out."""

    def repeated(f):
        def run(x):
            for _ in range(many):
                x = f(x)
            return x

        return run

    return repeated


# How some of them stand in a program, and the same written out: XLA counts the body of a loop once.
NESTS = {
    "plain": (lambda f: f, times(1)),
    "scan": (lambda f: lambda x: lax.scan(lambda h, _: (f(h), None), x, None, length=4)[0], times(4)),
    "fori": (lambda f: lambda x: lax.fori_loop(0, 3, lambda _, h: f(h), x), times(3)),
    "jit": (jax.jit, times(1)),
    "checkpoint": (jax.checkpoint, jax.checkpoint),
    "cond": (lambda f: lambda x: lax.cond(jnp.sum(x) > -1e9, f, lambda x: x, x), times(1)),
}


def program(rng):
    """A random function of R^d to R^m, the same written out, its input, and what it is made of."""
    d, n, m = (int(rng.choice([1, 3, 16, 64, 200])) for _ in range(3))
    into, w, out = (jnp.asarray(rng.normal(size=s) / np.sqrt(s[1]), "float32") for s in ((n, d), (n, n), (m, n)))
    parts = [(str(rng.choice(list(MAPS))), str(rng.choice(list(NESTS)))) for _ in range(rng.integers(1, 5))]

    def built(form):
        def f(x):
            h = into @ x
            for name, nest in parts:
                h = NESTS[nest][form](lambda h, name=name: MAPS[name](h, w))(h)
            return out @ h

        return f

    return built(0), built(1), jnp.asarray(rng.normal(size=d), "float32"), (d, n, m, parts)


def compiled_flops(f, x):
    """XLA's own count of an optimised program."""
    cost = jax.jit(f).lower(x).compile().cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost.get("flops", 0.0) + cost.get("transcendentals", 0.0)


PROGRAMS = int(os.environ.get("RANDOM_PROGRAMS", "40"))  # 300 of them take some minutes


def test_the_mode_is_right_on_random_programs():
    """Of the decided cells at least 99% have the mode that the compiled programs' flops show; none crashes."""
    wrong, decided = [], 0
    for seed in range(PROGRAMS):
        f, written_out, x, about = program(np.random.default_rng(seed))
        advice = which_mode(f, x)
        if advice.mode == "either":
            continue
        forward, reverse = (compiled_flops(mode(written_out), x) for mode in (jax.jacfwd, jax.jacrev))
        decided += 1
        if (reverse > forward) != (advice.mode == "forward"):
            wrong.append((seed, about, forward, reverse, advice))
    assert len(wrong) <= decided // 100, wrong
    assert decided > PROGRAMS / 2
