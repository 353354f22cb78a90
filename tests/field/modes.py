"""Jacobians: which mode, how many products, what the operations cost, which derivative at a point."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax

from tests.field.case import PLAIN, Case, Program, shape

rng = np.random.default_rng(0)
x8, eye8 = jnp.linspace(1, 2, 8), jnp.eye(8) * 3 + 0.1


def of(f, *args):
    """A ``make`` that has nothing to build."""
    return lambda: (f, args)


# ---------------------------------------------------------------- tall, wide, and made of moves alone


def phases() -> Program:
    def f(directions, baselines, frequencies):
        n = jnp.sqrt(1 - jnp.sum(directions**2, 1)) - 1
        path = directions @ baselines[:, :2].T + n[:, None] * baselines[:, 2]
        return path[..., None] * frequencies

    return f, (shape(10, 2), shape(128, 3), shape(16))


def distances() -> Program:
    def f(r):
        return jnp.sum(jnp.sqrt(jnp.sum((r[:, None] - r[None]) ** 2, -1) + jnp.eye(len(r))))

    return f, (jnp.asarray(rng.normal(size=(2483, 3)), jnp.float32),)


def distances_gradient(r):
    apart = r[:, None] - r[None]
    return 2 * jnp.sum(apart / jnp.sqrt(jnp.sum(apart**2, -1) + jnp.eye(len(r)))[..., None], 1)


def recurrence(form: str, read=lambda h: h):
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(256, 16)), jnp.float32)

    def associative(a):
        pair = jnp.broadcast_to(a, inputs.shape), inputs
        return read(lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), pair)[1])

    def stepwise(a):
        return read(lax.scan(lambda h, x: (a * h + x, a * h + x), jnp.zeros(16), inputs)[1])

    return of(associative if form == "associative" else stepwise, jnp.linspace(0.5, 0.95, 16))


def bratu() -> Program:
    def residual(u):
        padded = jnp.pad(u, 1)
        return (padded[2:] - 2 * u + padded[:-2]) * 100 + jnp.exp(u)

    return residual, (jnp.linspace(0, 1, 2000),)


def bratu_jacobian(u):
    n = len(u)
    return jnp.diag(jnp.exp(u) - 200) + 100 * (jnp.eye(n, k=1) + jnp.eye(n, k=-1))


def running_sums(reverse: bool):
    def f(ns):
        return lax.scan(lambda s, v: (s + 2 * v, s + 2 * v), jnp.float32(0), ns, reverse=reverse)[1]

    return of(f, jnp.arange(6.0))


many, few = "few inputs, many outputs", "many inputs, few outputs"
SHAPES = [
    Case(
        "gather from a table of 1e7",
        "jax #719",
        "Forward mode over a lookup in a huge table runs out of memory.",
        of(lambda table, w, ids: jnp.sum(table[ids] @ w), shape(10_000_000), shape(10, 10), np.arange(10)),
        {"mode": "reverse"},
    ),
    Case(
        "gather 64 -> 100000",
        "jax #719",
        "A pure gather has no arithmetic, so a count that knows only arithmetic has nothing to decide by.",
        of(lambda x: x[jnp.arange(100_000) % 64], jnp.ones(64)),
        {"mode": "forward", "jacrev_mib": 38147},
    ),
    Case(
        "gather 20000 -> 64",
        "jax #719",
        "The wide selection: 64 cotangents against 20000 tangents, and still no arithmetic.",
        of(lambda x: x[np.arange(64) * 7], jnp.ones(20_000)),
        {"mode": "reverse"},
    ),
    Case(
        "16 smallest of 4000",
        "jax #719",
        "Order statistics: sorting and slicing were counted as free.",
        of(lambda x: jnp.sort(x)[:16], jnp.asarray(rng.normal(size=4000), jnp.float32)),
        {"mode": "reverse"},
    ),
    Case(
        "16 values tiled and sorted to 4000",
        "jax #719",
        "The same operations, tall.",
        of(lambda z: jnp.sort(jnp.tile(z, 250)), jnp.asarray(rng.normal(size=16), jnp.float32)),
        {"mode": "forward"},
    ),
    Case(
        "phases of baselines 20 -> 20480",
        "jax #215",
        "Reverse mode took gigabytes for the Jacobian of a few angles.",
        phases,
        {"mode": "forward", "jacfwd_mib": 0.10, "jacrev_mib": 1600},
    ),
    Case(
        "sum of pair distances, 2483 atoms",
        "jax #787",
        "The Hessian of a pair energy wanted thousands of times its own size.",
        distances,
        {"mode": "reverse", "gradient": distances_gradient, "plain_mib": 23.6, "hessian_mib": 211.67},
    ),
    *(
        Case(
            f"linear recurrence, {form}, {what}",
            "jax #19498",
            "The Jacobian by the decay rates was far slower through an associative scan.",
            recurrence(form, read),
            {"mode": mode, **more},
        )
        for form, what, read, mode, more in (
            ("associative", "16 -> 4096", lambda h: h, "forward", {"jacfwd_mib": 0.48, "jacrev_mib": 384}),
            ("stepwise", "16 -> 4096", lambda h: h, "forward", {"jacfwd_mib": 0.25, "jacrev_mib": 128}),
            ("associative", "16 -> 16", lambda h: h[-1], "either", {}),
            ("associative", "16 -> 1", lambda h: jnp.sum(h**2), "reverse", {"plain_mib": 0.12}),
            ("stepwise", "16 -> 1", lambda h: jnp.sum(h**2), "reverse", {"plain_mib": 0.05}),
        )
    ),
    Case(
        "tridiagonal residual, 2000 unknowns",
        "jax #4753",
        "Newton's method built a dense Jacobian of a banded residual; three coloured products hold all of it.",
        bratu,
        {"mode": "either", "jacobian": bratu_jacobian, "jacobian_products": 3},
    ),
    *(
        Case(
            f"running sums, reverse={reverse}",
            "jax #753",
            "The Jacobian of a scan's outputs by its inputs, either way through time.",
            running_sums(reverse),
            {"mode": "either", "jacobian": lambda ns, m=triangle: 2 * m(jnp.ones((6, 6)))},
        )
        for reverse, triangle in ((False, jnp.tril), (True, jnp.triu))
    ),
]

# ---------------------------------------------------------------- loops that end by the data, rules that allow one mode


def newton(a):
    return lax.while_loop(lambda s: jnp.max(jnp.abs(s * s - a)) > 1e-6, lambda s: 0.5 * (s + a / s), jnp.ones_like(a))


def halving(s, a):
    return 0.5 * (s + a / s)


@jax.custom_vjp
def outside(a):
    return jax.pure_callback(lambda a: np.sum(np.asarray(a) ** 2, dtype=np.float32), shape(), a)


outside.defvjp(lambda a: (outside(a), a), lambda a, g: (2 * g * a,))
KEY = jax.random.key(0)


def only(mode: str, met: str, name: str, f, args=(x8,), gradient=PLAIN) -> Case:
    """One input mode that works, the other raises."""
    right = {"mode": mode, "only": True} | ({"gradient": gradient} if mode == "reverse" else {})
    return Case(name, "jax #4106", met, of(f, *args), right)


def scalar(name: str, f, x=x8, mode: str = "reverse") -> Case:
    return Case(
        name,
        "cola #120, ott #7",
        "The function holds a loop or an operation that analysis gave up on.",
        of(f, x),
        {"mode": mode, "gradient": PLAIN},
    )


RULES = [
    only("forward", "A loop that stops by its data has a jvp but no vjp.", "while on the data, 8 -> 8", newton),
    only("forward", "The same for a loss: the only mode wins.", "while, 8 -> 1", lambda a: jnp.sum(newton(a))),
    only(
        "reverse",
        "A host function with a pullback of its own has no jvp.",
        "callback with a rule",
        outside,
        gradient=lambda a: 2 * a,
    ),
    scalar("fori of fixed bound, 8 -> 1", lambda a: jnp.sum(lax.fori_loop(0, 50, lambda _, s: halving(s, a), a))),
    scalar("expm, 8 x 8 -> 1", lambda a: jnp.sum(jsp.linalg.expm(a / 8)), eye8),
    scalar("conjugate gradients, 8 -> 1", lambda b: jnp.sum(jsp.sparse.linalg.cg(lambda v: eye8 @ v, b)[0] ** 2)),
    scalar("gammainc, 8 -> 1", lambda a: jnp.sum(jsp.special.gammainc(2.0, a))),
    scalar("betainc, 8 -> 1", lambda a: jnp.sum(jsp.special.betainc(2.0, 3.0, a / 4))),
    scalar("random.gamma, 8 -> 1", lambda a: jnp.sum(jax.random.gamma(KEY, a))),
    scalar("noise by a typed key, 8 -> 1", lambda a: jnp.sum(a * jax.random.normal(KEY, (8,)))),
    scalar("qr, 8 x 8 -> 1", lambda a: jnp.sum(jnp.linalg.qr(a)[1]), eye8),
    Case(
        "custom root, 2 -> 2",
        "DESC #1347",
        "The solver is a while loop, but the root has a rule of its own.",
        of(
            lambda a: lax.custom_root(
                lambda x: x**3 - a,
                jnp.ones_like(a),
                lambda g, x: lax.while_loop(
                    lambda s: jnp.max(jnp.abs(g(s))) > 1e-6, lambda s: s - g(s) / (3 * s**2), x
                ),
                lambda g, y: y / g(jnp.ones_like(y)),
            ),
            jnp.asarray([1.0, 8.0]),
        ),
        {"mode": "either", "jacobian": lambda a: jnp.diag(1 / (3 * a ** (2 / 3)))},
    ),
]

# ---------------------------------------------------------------- arguments as people pass them


class Model:
    """A callable object with a parameter of its own."""

    def __init__(self, w: float) -> None:
        self.w = w

    def __call__(self, x):
        return jnp.sum(jnp.tanh(self.w * x))


def argument(name: str, f, *args, mode: str = "reverse", **right) -> Case:
    met = "Derivatives take sizes, flags, strings and trees among the arguments; so must everything built on them."
    return Case(name, "jax #14447", met, of(f, *args), {"mode": mode, **right})


ARGUMENTS = [
    argument("a size", lambda x, n: sum(x**k for k in range(n)), x8, 3, mode="either"),
    argument(
        "a flag",
        lambda x, train: jnp.sum(x) if train else 2 * jnp.sum(x),
        x8,
        True,
        gradient=lambda x, _: jnp.ones_like(x),
    ),
    argument(
        "a string",
        lambda x, kind: jnp.sum(getattr(jnp, kind)(x)),
        x8,
        "tanh",
        gradient=lambda x, _: 1 - jnp.tanh(x) ** 2,
    ),
    argument("None", lambda x, y: jnp.sum(x) if y is None else y, x8, None, gradient=lambda x, _: jnp.ones_like(x)),
    argument("a callable object", Model(2.0), x8, gradient=lambda x: 2 * (1 - jnp.tanh(2 * x) ** 2)),
    argument("a tree of arrays", lambda p: jnp.sum(p["a"] * p["b"]), {"a": x8, "b": x8}, gradient=lambda p: p),
    argument("a float", lambda s: s * x8, 2.0, mode="forward"),
    Case(
        "integers among the inputs",
        "jax #14447",
        "An index in the tree of parameters.",
        of(lambda p: jnp.sum(p["a"][p["i"]]), {"a": x8, "i": jnp.arange(3)}),
        {"refused": "an integer leaf has no derivative: pass it as an argument of its own"},
    ),
    Case(
        "an integer among the outputs",
        "jax #14447",
        "An index beside the value: only forward mode takes it.",
        of(lambda x: (x, jnp.argmax(x)), x8),
        {"mode": "forward", "only": True},
    ),
    Case(
        "complex in, real out",
        "jax #14447",
        "Only reverse mode takes a complex input to a real output.",
        of(lambda z: jnp.abs(z) ** 2, x8.astype(jnp.complex64)),
        {"mode": "reverse", "only": True},
    ),
    Case(
        "an empty input",
        "jax #14447",
        "Nothing to differentiate is no error.",
        of(lambda x: jnp.sum(x), jnp.zeros(0)),
        {"mode": "either", "gradient": lambda x: x},
    ),
    Case(
        "times ones(1)",
        "jax #14447",
        "A constant in the program stopped the count of residuals.",
        of(lambda x: jnp.sum(x * jnp.ones(1)), jnp.ones(3)),
        {"mode": "reverse", "gradient": jnp.ones_like},
    ),
    Case(
        "beside zeros(1)",
        "jax #14447",
        "The same for a constant that is concatenated.",
        of(lambda x: jnp.sum(jnp.concatenate([jnp.zeros(1), x]) ** 2), jnp.ones(3)),
        {"mode": "reverse", "gradient": lambda x: 2 * x},
    ),
]

# ---------------------------------------------------------------- the order of flops of an operation

n = 64
square, vector = shape(n, n), shape(n)
FLOPS = [
    Case(
        f"flops of {primitive}{', complex' if args[0].dtype == 'complex64' else ''}",
        "jax #719 and kin",
        "An operation of unknown cost was counted as none, and so decided a mode.",
        of(f, *args),
        {"primitive": primitive, "flops": flops},
    )
    for primitive, f, args, flops in (
        ("dot_general", lambda a: a @ a, (square,), 2 * n**3),
        ("dot_general", lambda a: a @ a, (shape(n, n, dtype="complex64"),), 8 * n**3),
        (
            "conv_general_dilated",
            lambda x, k: lax.conv(x, k, (1, 1), "SAME"),
            (shape(1, 8, 32, 32), shape(16, 8, 3, 3)),
            2 * 32 * 32 * 9 * 8 * 16,
        ),
        ("cholesky", jnp.linalg.cholesky, (square,), n**3 / 3),
        ("lu", jsp.linalg.lu, (square,), 2 / 3 * n**3),
        ("eigh", jnp.linalg.eigh, (square,), 9 * n**3),
        ("eig", jnp.linalg.eigvals, (square,), 10 * n**3),
        ("qr", jnp.linalg.qr, (square,), 8 / 3 * n**3),
        ("schur", jsp.linalg.schur, (square,), 25 * n**3),
        ("tridiagonal_solve", lambda d: lax.linalg.tridiagonal_solve(d, d + 4, d, d[:, None]), (vector,), 8 * n),
        ("fft", jnp.fft.fft, (vector,), 5 * n * np.log2(n)),
        ("sort", jnp.sort, (vector,), n * np.log2(n)),
        ("argmax", jnp.argmax, (vector,), n),
        ("scatter-add", lambda x: jax.ops.segment_sum(x, np.arange(4096) % 7, 7), (shape(4096),), 4096),
        ("gather", lambda v: v[np.arange(4096) % n], (vector,), 0),
        ("lgamma", jsp.special.gammaln, (vector,), n),
        ("digamma", jsp.special.digamma, (vector,), n),
        ("erfc", jsp.special.erfc, (vector,), n),
        ("cumlogsumexp", lax.cumlogsumexp, (vector,), 3 * n),
        (
            "ragged_dot_general",
            lax.ragged_dot,
            (shape(64, 32), shape(4, 32, 16), shape(4, dtype="int32")),
            2 * 64 * 32 * 16,
        ),
        ("random_bits", lambda v: v + jax.random.normal(KEY, (n,)), (vector,), 10 * n),
    )
]

# ---------------------------------------------------------------- the derivative at a point, and the row that spoils it

root = "A branch that is not taken has an infinite derivative, and zero times infinity is no number."
POINTS = [
    Case(f"at a point: {name}", source, met, of(f, *args), right)
    for name, source, met, f, args, right in (
        (
            "where(x < 1, x, sqrt x) at 0",
            "jax #5798",
            root,
            lambda x: jnp.where(x < 1, x, jnp.sqrt(x)),
            (0.0,),
            {"value": 0.0, "plain_is_nan": True, "derivative": 1.0, "spoiled_by": "sqrt"},
        ),
        (
            "the same with a second where",
            "jax #5798",
            "The usual way out.",
            lambda x: jnp.where(x < 1, x, jnp.sqrt(jnp.where(x < 1, 1.0, x))),
            (0.0,),
            {"value": 0.0, "derivative": 1.0},
        ),
        (
            "sqrt(x^2 + y^2) at 0",
            "jax #3058",
            "A norm at the origin: undefined, and the row is the root.",
            lambda x, y: jnp.sqrt(x * x + y * y),
            (0.0, 0.0),
            {"value": 0.0, "plain_is_nan": True, "spoiled_by": "sqrt"},
        ),
        (
            "x^y at (2, 3)",
            "jax #347",
            "A power in both arguments.",
            lambda x, y: x**y,
            (2.0, 3.0),
            {"value": 8.0, "derivative": 12.0},
        ),
        ("max of equals", "jax #1052", "A tie is shared.", jnp.maximum, (1.0, 1.0), {"value": 1.0, "derivative": 0.5}),
        (
            "relu at 0",
            "jax #1052",
            "The rule of the function, not that of its parts.",
            jax.nn.relu,
            (0.0,),
            {"value": 0.0, "derivative": 0.0},
        ),
        (
            "cond",
            "jax #1052",
            "A branch inside a scalar program.",
            lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x),
            (0.5,),
            {"value": np.sin(0.5), "derivative": np.cos(0.5)},
        ),
        (
            "norm of two stacked scalars",
            "jax #3058",
            "Scalars that pass through a small array.",
            lambda x, y: jnp.linalg.norm(jnp.stack([x, y])),
            (3.0, 4.0),
            {"value": 5.0, "derivative": 0.6},
        ),
        (
            "jax.checkpoint",
            "jax #1052",
            "A recomputed block inside a scalar program.",
            jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))),
            (0.5,),
            {"value": np.sin(np.sin(0.5)), "derivative": np.cos(np.sin(0.5)) * np.cos(0.5)},
        ),
        (
            "a constant",
            "jax #1052",
            "A result that does not depend on the input.",
            lambda x: 0 * x + 3.0,
            (1.0,),
            {"value": 3.0, "derivative": 0.0},
        ),
        (
            "a gradient inside",
            "jax #347",
            "The derivative of a derivative under jit.",
            lambda x: jax.grad(jax.jit(lambda x: x**3))(x),
            (2.0,),
            {"value": 12.0, "derivative": 12.0},
        ),
    )
]

CASES = [*SHAPES, *RULES, *ARGUMENTS, *FLOPS, *POINTS]
