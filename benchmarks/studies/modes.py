"""Forward or reverse mode? What a Jacobian costs by either, over the numbers of inputs and outputs.

The lecture: forward mode takes one pass an input, d x O(T) for d inputs; reverse mode takes one pass an output, O(T)
for a scalar loss, and stores the forward pass. So forward wins where inputs are few and reverse where outputs are few,
and between them runs a line d = c m, with c the cost of pulling one cotangent over that of pushing one tangent
(Griewank and Walther, Evaluating Derivatives, 2nd ed. 2008, chapter 3).

Three families of f: R^d -> R^m, each ``depth`` steps of a state of k numbers in a ``lax.scan``: ``dense``, layers
tanh(W h) between a linear map in and one out; ``elementwise``, h cos h; ``ode``, Euler steps of the equation of Lorenz
(1996) with a forcing too weak for chaos, so that rounding errors do not grow. The last two repeat the inputs to fill
the state and add it up to the outputs. A fourth, ``field``, is of programs that people asked about, one each; there
``adcost.which_mode`` says beforehand which mode it will be.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from adcost.modes import which_mode
from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from benchmarks.workloads.field import FIELD, arguments, jacobian

WIDTH = 64  # of a dense layer, and the least state of the others
STEP, FORCING = 0.01, 1.0
CHUNK = 16  # tangents, or cotangents, that go together in the chunked methods
MAP_DEPTH = 8  # steps at which inputs and outputs vary

Vector = Float[Array, " d"]
Function = Callable[[Any], Any]


# Workloads: parameters and x to f(x).


def dense(weights: tuple[Array, Array, Array], x: Vector, case: Case) -> Array:
    """Layers of tanh between a linear map into the layers and one out of them."""
    first, layers, last = weights
    return last @ lax.scan(lambda h, layer: (jnp.tanh(layer @ h), None), first @ x, layers)[0]


def elementwise(weights: tuple[()], x: Vector, case: Case) -> Array:
    """Every element for itself: h cos h."""
    return _spread(x, case, lambda h: h * jnp.cos(h))


def ode(weights: tuple[()], x: Vector, case: Case) -> Array:
    """Euler steps of dh_i/dt = (h_{i+1} - h_{i-2}) h_{i-1} - h_i + F (Lorenz 1996)."""

    def step(h: Array) -> Array:
        return h + STEP * ((jnp.roll(h, -1) - jnp.roll(h, 2)) * jnp.roll(h, 1) - h + FORCING)

    return _spread(x, case, step)


def _spread(x: Vector, case: Case, step: Function) -> Array:
    h = jnp.tile(x, state(case) // case["inputs"])
    h = lax.scan(lambda h, _: (step(h), None), h, length=case["depth"])[0]
    return h.reshape(-1, case["outputs"]).sum(0)


FAMILIES: dict[str, Callable[[Any, Vector, Case], Array]] = {"dense": dense, "elementwise": elementwise, "ode": ode}


def state(case: Case) -> int:
    """Numbers in the state of a case."""
    return WIDTH if case.word("family") == "dense" else max(case["inputs"], case["outputs"], WIDTH)


# Methods: each takes f, x, a tangent v of x and a cotangent u of f(x). Jacobians are outputs x inputs.


def function(f: Function, x: Array, v: Array, u: Array) -> Array:
    """f itself: the yardstick."""
    return f(x)


def jvp(f: Function, x: Array, v: Array, u: Array) -> Array:
    """One tangent, forward."""
    return jax.jvp(f, (x,), (v,))[1]


def vjp(f: Function, x: Array, v: Array, u: Array) -> Array:
    """One cotangent, backward: the gradient where there is one output."""
    return jax.vjp(f, x)[1](u)[0]


def jacfwd(f: Function, x: Array, v: Array, u: Array) -> Array:
    """All tangents in one batch."""
    return jax.jacfwd(f)(x)


def jacrev(f: Function, x: Array, v: Array, u: Array) -> Array:
    """All cotangents in one batch."""
    return jax.jacrev(f)(x)


def jacfwd_loop(f: Function, x: Array, v: Array, u: Array, batch_size: int | None = None) -> Array:
    """One tangent after the other, each with its own evaluation of f, as the lecture counts."""
    columns = lax.map(lambda i: jax.jvp(f, (x,), (unit(i, x),))[1], jnp.arange(x.size), batch_size=batch_size)
    return columns.T


def jacrev_loop(f: Function, x: Array, v: Array, u: Array, batch_size: int | None = None) -> Array:
    """One forward pass, and one cotangent after the other."""
    pull = jax.vjp(f, x)[1]
    return lax.map(lambda i: pull(unit(i, u))[0], jnp.arange(u.size), batch_size=batch_size)


def linearized(f: Function, x: Array, v: Array, u: Array) -> Array:
    """f linearised once, and all tangents through what is linear, in one batch."""
    push = jax.linearize(f, x)[1]
    return jax.vmap(push, out_axes=-1)(jnp.eye(x.size, dtype=x.dtype))


def unit(i: Array, like: Array) -> Array:
    """The i-th unit vector, made where it is needed: no identity matrix is held."""
    return (jnp.arange(like.size) == i).astype(like.dtype)


METHODS = {
    "function": Method(function, differentiates=False, where=lambda case: in_depth(case) or on_edge(case)),
    "jvp": Method(jvp, where=lambda case: in_depth(case) or (on_map(case) and case["outputs"] == 1)),
    "vjp": Method(vjp, where=lambda case: in_depth(case) or (on_map(case) and case["outputs"] == 1)),
    "jacfwd": Method(jacfwd, where=lambda case: on_map(case) or "jacfwd" in field_modes(case)),
    "linearized": Method(linearized, label="jax.linearize", where=lambda case: on_map(case) and case["outputs"] == 1),
    "jacrev": Method(jacrev, where=lambda case: on_map(case) or "jacrev" in field_modes(case)),
    "jacfwd_loop": Method(jacfwd_loop, where=lambda case: on_map(case) and case["outputs"] == 1),
    "jacfwd_chunked": Method(
        partial(jacfwd_loop, batch_size=CHUNK),
        where=lambda case: on_map(case) and case["outputs"] == 1 and case["inputs"] > CHUNK,
    ),
    "jacrev_loop": Method(jacrev_loop, where=lambda case: on_map(case) and case["inputs"] == 1),
    "jacrev_chunked": Method(
        partial(jacrev_loop, batch_size=CHUNK),
        where=lambda case: on_map(case) and case["inputs"] == 1 and case["outputs"] > CHUNK,
    ),
}


def in_field(case: Case) -> bool:
    """Is the case a program from the field?"""
    return case.word("family") == "field"


def field_modes(case: Case) -> tuple[str, ...]:
    """The modes that JAX has for a program from the field; of other cases none."""
    return FIELD[case.word("program")].modes if in_field(case) else ()


def on_map(case: Case) -> bool:
    """Is the case one of the map over inputs and outputs?"""
    return not in_field(case) and case["depth"] == MAP_DEPTH


def in_depth(case: Case) -> bool:
    """Is the case one of the sweep over depth?"""
    return not in_field(case) and case["depth"] != MAP_DEPTH


def on_edge(case: Case) -> bool:
    """Is the case at the map's edge: one output, or one input?"""
    return on_map(case) and 1 in (case["inputs"], case["outputs"])


def program(case: Case) -> Program:
    """The case's product or Jacobian, of its family's function at x."""
    if in_field(case):
        return from_the_field(case)
    method, family = METHODS[case.method], FAMILIES[case.word("family")]

    def run(weights: Any, x: Array, v: Array, u: Array) -> Array:
        return method.build(lambda x: family(weights, x, case), x, v, u)

    def result(weights: Any, x: Array) -> Array:
        return family(weights, x, case)

    facts = {"activation": (4 * state(case), "B")}
    loss = (lambda weights, x, v, u: result(weights, x)) if case.method == "vjp" else None
    return Program(run, partial(inputs, case), loss=loss, facts=facts)


ADVISED = {"forward": 1.0, "reverse": -1.0, "either": 0.0}


def from_the_field(case: Case) -> Program:
    """The Jacobian of a program from the field; ``advised`` is what ``which_mode`` says of the program."""
    method, f = METHODS[case.method], FIELD[case.word("program")].f

    def run(weights: Any, x: Array) -> Array:
        return method.build(lambda x: f(weights, x), x, x, x)

    facts = {}
    if case.method == "jacrev":
        facts["advised"] = (ADVISED[advised(case)], "1 forward, -1 reverse, 0 either")
        facts["possible modes"] = (float(len(field_modes(case))), "modes")
    return Program(run, lambda: field_arguments(case), facts=facts)


@once_a_size
def advised(case: Case) -> str:
    """The mode that ``which_mode`` advises, from shapes alone."""
    weights, x = field_arguments(case)
    f, shape = FIELD[case.word("program")].f, jax.ShapeDtypeStruct(x.shape, x.dtype)
    return which_mode(lambda x: f(weights, x), shape).mode


@once_a_size
def field_arguments(case: Case) -> tuple[Any, Any]:
    """Weights and x of a program from the field."""
    return arguments(case.word("program"), case.dtype)


@once_a_size
def inputs(case: Case) -> tuple[Any, ...]:
    """Weights that keep a vector's size, x, and a tangent and a cotangent of length one."""
    rng = np.random.default_rng(0)
    d, m, k = case["inputs"], case["outputs"], state(case)
    weights: tuple[np.ndarray, ...] = ()
    if case.word("family") == "dense":
        layers = np.linalg.qr(rng.normal(size=(case["depth"], k, k)))[0]
        weights = (rng.normal(size=(k, d)) / np.sqrt(d), layers, rng.normal(size=(m, k)) / np.sqrt(k))
    x, v, u = (rng.normal(size=size) for size in (d, d, m))
    arrays = x, v / np.linalg.norm(v), u / np.linalg.norm(u)
    return tuple(w.astype(case.dtype) for w in weights), *(a.astype(case.dtype) for a in arrays)


# The reference: tangents and cotangents by hand, in NumPy and float64.


def reference(case: Case) -> np.ndarray:
    """The case's product or Jacobian, by pushing and pulling vectors by hand; of the field's, by differences."""
    if in_field(case):
        return jacobian(case.word("program"))
    weights, x, v, u = inputs(case)
    weights, x, v, u = [w.astype(float) for w in weights], x.astype(float), v.astype(float), u.astype(float)
    if case.method == "vjp":
        return pulled(case, weights, x, u[None])[0]
    if case.method == "jvp":
        return pushed(case, weights, x, v[None])[0]
    if x.size <= u.size:
        return pushed(case, weights, x, np.eye(x.size)).T
    return pulled(case, weights, x, np.eye(u.size))


def pushed(case: Case, weights: list[np.ndarray], x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tangents, a row each, through f."""
    dense = case.word("family") == "dense"
    t = v @ weights[0].T if dense else np.tile(v, state(case) // x.size)
    for i, h in enumerate(_states(case, weights, x)[:-1]):
        t = t @ weights[1][i].T if dense else t
        t = _along(case, h, t)
    return t @ weights[2].T if dense else t.reshape(len(t), -1, case["outputs"]).sum(1)


def pulled(case: Case, weights: list[np.ndarray], x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Cotangents, a row each, back through f."""
    dense = case.word("family") == "dense"
    c = u @ weights[2] if dense else np.tile(u, state(case) // case["outputs"])
    for i, h in reversed(list(enumerate(_states(case, weights, x)[:-1]))):
        c = _back(case, h, c)
        c = c @ weights[1][i] if dense else c
    return c @ weights[0] if dense else c.reshape(len(c), -1, x.size).sum(1)


def _states(case: Case, weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """What each step's derivative depends on, in order, and the last state: W h of a dense layer, otherwise h."""
    if case.word("family") == "dense":
        h, found = weights[0] @ x, []
        for layer in weights[1]:
            found.append(layer @ h)
            h = np.tanh(found[-1])
        return [*found, h]
    found = [np.tile(x, state(case) // x.size)]
    for _ in range(case["depth"]):
        h = found[-1]
        if case.word("family") == "elementwise":
            found.append(h * np.cos(h))
        else:
            found.append(h + STEP * ((np.roll(h, -1) - np.roll(h, 2)) * np.roll(h, 1) - h + FORCING))
    return found


def _along(case: Case, h: np.ndarray, t: np.ndarray) -> np.ndarray:
    if case.word("family") == "dense":
        return t * (1 - np.tanh(h) ** 2)
    if case.word("family") == "elementwise":
        return t * (np.cos(h) - h * np.sin(h))
    product = (np.roll(t, -1, 1) - np.roll(t, 2, 1)) * np.roll(h, 1) + (np.roll(h, -1) - np.roll(h, 2)) * np.roll(
        t, 1, 1
    )
    return t + STEP * (product - t)


def _back(case: Case, h: np.ndarray, c: np.ndarray) -> np.ndarray:
    if case.word("family") != "ode":
        return _along(case, h, c)  # a diagonal matrix is its own transpose
    before = np.roll(h, 1) * c
    product = np.roll(before, 1, 1) - np.roll(before, -2, 1) + np.roll((np.roll(h, -1) - np.roll(h, 2)) * c, -1, 1)
    return c + STEP * (product - c)


def sizes(edge: tuple[int, ...], line: tuple[int, ...], lines: tuple[str, ...], deep: dict[str, int]) -> list[Params]:
    """The map over inputs and outputs, its edges in finer steps, and the sweep over depth; each size once.

    ``deep`` gives the families of the sweep over depth, and how many inputs and outputs they have there. The programs
    from the field have one size each.
    """

    def all_sizes() -> Iterator[Params]:
        for family in FAMILIES:
            for d in edge:
                for m in edge:
                    yield {"family": family, "inputs": d, "outputs": m, "depth": MAP_DEPTH}
        for family in lines:
            for d in line:
                yield {"family": family, "inputs": d, "outputs": 1, "depth": MAP_DEPTH}
                yield {"family": family, "inputs": 1, "outputs": d, "depth": MAP_DEPTH}
        for family, d in deep.items():
            for n in DEPTHS:
                yield {"family": family, "inputs": d, "outputs": d, "depth": n}
        for name, workload in FIELD.items():
            yield {"family": "field", "program": name, "inputs": workload.inputs, "outputs": workload.outputs}

    return list({tuple(size.values()): size for size in all_sizes()}.values())


DEPTHS = (4, 12, 24, 48, 96, 192, 384, 768)
LINE = (1, 4, 16, 64, 128, 256, 512, 1024)

STUDY = Study(
    name="modes",
    question="Forward or reverse mode: what does a Jacobian cost, over the numbers of inputs and outputs?",
    methods=METHODS,
    sizes={
        "quick": sizes((1, 8, 64, 512), LINE, ("dense",), {"ode": 16384}),
        # Of a long chain of h cos h float32 keeps no digit of a derivative: it is chaotic, and not swept over depth.
        "full": sizes((1, 4, 16, 64, 256, 1024), LINE, tuple(FAMILIES), {"dense": 64, "ode": 16384}),
    },
    program=program,
    reference=reference,
    tolerance=lambda case: 1e-3,
    baselines=("jacrev", "function"),
    together=("program", "inputs", "outputs", "depth"),
    in_turn=("program",),
    compared={"depth": DEPTHS},
)
