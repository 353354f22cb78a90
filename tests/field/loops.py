"""Loops: what the gradient is, what the plain program keeps, what is enough. ``build(scan)`` takes the scan to use."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from tests.field.case import PLAIN, Case, Program, blocks, loop, normal, shape

# ---------------------------------------------------------------- what the loop keeps


def accumulator(scan) -> Program:
    ys, z = jnp.ones(64), normal(1000, 1000)

    def f(x, ys, z):
        return jnp.mean(scan(lambda s, y: (s + jnp.sin(x * z) * (y + z), None), jnp.zeros_like(z), ys)[0])

    return f, (0.5, ys, z)


def segments(kind: str):
    """Five long loops after each other; nothing, the step, or each whole loop under jax.checkpoint."""

    def step(c, i):
        return c + 1e-3 * jnp.tanh(c * 1.01 + jnp.sin(c) * (i % 7)), None

    def build(scan) -> Program:
        def f(x):
            for s in range(5):

                def run(c, s=s):
                    body = jax.checkpoint(step) if kind == "step" else step
                    return scan(body, c, jnp.arange(200.0) + s)[0]

                x = (jax.checkpoint(run) if kind == "whole" else run)(x)
            return jnp.sum(x)

        return f, (jnp.linspace(-1, 1, 4096),)

    return build


def powers(X):
    return lax.scan(lambda c, _: (c @ X / 10, None), X, None, length=500)[0]


def stopped(late: bool):
    def f(X):
        return jnp.sum(X @ lax.stop_gradient(powers(X)) if late else X @ powers(lax.stop_gradient(X)))

    return f, (normal(200, 200, scale=0.5),)


def early_exit(scan) -> Program:
    def f(a):
        def step(s, _):
            x, go = s
            x = lax.cond(go, lambda x: 0.5 * (x + a / x), lambda x: x, x)
            return (x, jnp.max(jnp.abs(x * x - a)) > 1e-5), None

        return jnp.sum(scan(step, (jnp.ones_like(a), True), None, length=64)[0][0])

    return f, (jnp.linspace(1, 2, 1000),)


SERIES = normal(400, 32)


def written_into_carry(guard: bool) -> Program:
    n, d = SERIES.shape

    def f(xs):
        def step(s, i):
            ys, h = s
            h = jnp.tanh(h + xs[i])
            new = lax.dynamic_update_index_in_dim(ys, h * ys[i - 1] + h, i, 0)
            return (jnp.where(h[0] > -9.0, new, ys) if guard else new, h), None

        return jnp.sum(lax.scan(step, (jnp.zeros((n, d)), jnp.zeros(d)), jnp.arange(n))[0][0])

    return f, (SERIES,)


def written_as_output():
    def f(xs):
        def step(s, x):
            h, y = s
            h = jnp.tanh(h + x)
            y = h * y + h
            return (h, y), y

        return jnp.sum(lax.scan(step, (jnp.zeros(32), jnp.zeros(32)), xs)[1])

    return f


ROWS, COLUMNS = 512, 16


def volterra_row(theta, ys, i):
    kernel = jnp.exp(-theta * jnp.abs(i - jnp.arange(ROWS)))
    return jnp.sin(1.0 + 0.1 * jnp.tanh(ys).T @ kernel)


def volterra_rows(theta):
    def step(ys, i):
        return lax.dynamic_update_index_in_dim(ys, volterra_row(theta, ys, i), i, 0), None

    return lax.scan(step, jnp.zeros((ROWS, COLUMNS)), jnp.arange(ROWS))[0]


def volterra() -> Program:
    return lambda theta: jnp.mean(volterra_rows(theta)), (jnp.float32(0.3),)


def volterra_from_its_result():
    """Row i is written once: the final rows are all that its pullback needs."""

    @jax.custom_vjp
    def f(theta):
        return jnp.mean(volterra_rows(theta))

    def forward(theta):
        ys = volterra_rows(theta)
        return jnp.mean(ys), (theta, ys)

    def backward(residuals, g):
        theta, ys = residuals

        def step(carry, i):
            dtheta, dys = carry
            before = jnp.where(jnp.arange(ROWS)[:, None] < i, ys, 0)
            t, d = jax.vjp(lambda theta, ys: volterra_row(theta, ys, i), theta, before)[1](dys[i])
            return (dtheta + t, dys + jnp.where(jnp.arange(ROWS)[:, None] < i, d, 0)), None

        start = jnp.float32(0), jnp.full((ROWS, COLUMNS), g / (ROWS * COLUMNS))
        return (lax.scan(step, start, jnp.arange(ROWS), reverse=True)[0][0],)

    f.defvjp(forward, backward)
    return f


def backwards_rnn(reverse: bool):
    xs = normal(4000, 64)

    def build(scan) -> Program:
        def f(W):
            step = lambda h, x: (jnp.tanh(W @ h + x), None)  # noqa: E731
            return jnp.sum(scan(step, jnp.zeros(64), xs, reverse=reverse)[0] ** 2)

        return f, (jnp.eye(64) * 0.9,)

    return build


def heat(scan) -> Program:
    def f(k):
        step = lambda u, _: (u + 0.1 * k * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)), None)  # noqa: E731
        return jnp.sum(scan(step, jnp.sin(jnp.linspace(0, 3, 64)), None, length=2000)[0] ** 2)

    return f, (jnp.full(64, 0.5),)


def euler(scan) -> Program:
    return lambda y: jnp.sum(scan(lambda y, _: (y - 0.05 * y, None), y, None, length=100)[0]), (jnp.arange(1024.0),)


def pendulums(n: int):
    def build(scan) -> Program:
        def f(k):
            def step(s, _):
                x, v = s
                return (x + 0.01 * v, v - 0.01 * k * jnp.sin(x)), None

            return jnp.sum(scan(step, (jnp.linspace(0, 1, 64), jnp.zeros(64)), None, length=n)[0][0])

        return f, (jnp.ones(64),)

    return build


def weights(where: str):
    def build(scan) -> Program:
        def closed(W):
            return jnp.sum(scan(lambda h, _: (jnp.tanh(W @ h + 0.1), None), jnp.ones(64), None, length=4000)[0])

        def carried(W):
            step = lambda s, _: ((s[0], jnp.tanh(s[0] @ s[1] + 0.1)), None)  # noqa: E731
            return jnp.sum(scan(step, (W, jnp.ones(64)), None, length=4000)[0][1])

        return closed if where == "closed over" else carried, (jnp.eye(64) * 0.99,)

    return build


def cache() -> Program:
    def f(x):
        def step(s, t):
            rows, h = s
            h = jnp.tanh(h + rows[t // 2])
            return (rows.at[t].set(h), h), None

        return jnp.sum(lax.scan(step, (jnp.zeros((200, 512)), x), jnp.arange(200))[0][1])

    return f, (jnp.ones(512),)


def training(scan) -> Program:
    """The mean loss of 200 steps of Adam, by its learning rate and its start."""
    A, y = normal(64, 512, scale=0.05), jnp.ones(64)

    def inner(w):
        return jnp.mean((jnp.tanh(A @ w) - y) ** 2)

    def f(theta):
        rate, start = theta

        def step(s, t):
            w, m, v = s
            g = jax.grad(inner)(w)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
            return (w, m, v), inner(w)

        zero = jnp.zeros(512)
        return jnp.mean(scan(step, (start, zero, zero), jnp.arange(1.0, 201.0))[1])

    return f, ((jnp.float32(0.01), jnp.full(512, 0.01)),)


MEMORY = [
    loop(
        "sum of products",
        "jax #3186",
        "A loop that only adds up kept every term, though its carry is linear.",
        accumulator,
        mode="either",
        plain_mib=255.6,
        temp_at_most_mib=12,
        gradient=lambda x, ys, z: jnp.mean(jnp.cos(x * z) * z * (jnp.sum(ys) + len(ys) * z)),
    ),
    *(
        loop(
            f"five loops, jax.checkpoint around {kind}",
            "jax #27748",
            "Checkpointing a whole loop saves nothing: its backward pass stores the loop again.",
            segments(kind),
            gradient=PLAIN,
            plain_mib=plain,
            temp_at_most_mib=2.0,
        )
        for kind, plain in (("none", 46.9), ("step", 15.7), ("whole", 50.0))
    ),
    *(
        Case(
            f"stop_gradient {'after' if late else 'before'} the loop",
            "jax #4853",
            "A loop whose result is not differentiated was feared to be stored; a schedule must not store it either.",
            lambda late=late: stopped(late),
            {
                "gradient": lambda X: jnp.broadcast_to(jnp.sum(powers(X), 1), X.shape),
                "plain_mib": 0.31,
                "temp_at_most_mib": 0.35,
            },
            lambda late=late: stopped(late)[0],
        )
        for late in (True, False)
    ),
    loop(
        "early exit by cond",
        "jax #8239",
        "A bounded loop that stops early cost far more backwards than forwards.",
        early_exit,
        gradient=lambda a: 0.5 / jnp.sqrt(a),
        plain_mib=0.76,
        temp_at_most_mib=0.15,
    ),
    *(
        Case(
            f"results written into the carry, {'a select after' if guard else 'bare'}",
            "jax #15906",
            "A buffer in the carry is part of every stored state: memory grows with the square of the length.",
            lambda guard=guard: written_into_carry(guard),
            {"gradient": PLAIN, "plain_mib": 0.30, "temp_at_most_mib": 0.30},
            written_as_output,
        )
        for guard in (True, False)
    ),
    Case(
        "each row reads all rows before",
        "jax #15906",
        "The triangular form: the tape is n buffers of n rows.",
        volterra,
        {"gradient": PLAIN, "plain_mib": 50.1, "temp_at_most_mib": 0.5},
        volterra_from_its_result,
    ),
    *(
        loop(
            f"recurrent net, reverse={reverse}",
            "flax #2770",
            "The same loop run from the end.",
            backwards_rnn(reverse),
            gradient=PLAIN,
            plain_mib=2.93,
            temp_at_most_mib=0.2,
        )
        for reverse in (False, True)
    ),
    loop(
        "heat, 2000 steps",
        "diffrax #274",
        "With room for all states a schedule should cost what the plain loop costs.",
        heat,
        gradient=PLAIN,
        plain_mib=0.49,
        temp_at_most_mib=0.06,
    ),
    loop(
        "decay, 100 steps",
        "diffrax #572",
        "A gradient that is a power.",
        euler,
        gradient=lambda y: jnp.full_like(y, 0.95**100),
    ),
    loop(
        "pendulums, 1e6 steps",
        "jaxley #16",
        "Making the schedule took longer than running it.",
        pendulums(1_000_000),
        plain_mib=488.3,
        temp_at_most_mib=5,
        schedule_seconds_at_most=1.0,
    ),
    loop(
        "pendulums, 1e4 steps",
        "jaxley #16",
        "The same, short enough to be run by anyone.",
        pendulums(10_000),
        gradient=PLAIN,
        temp_at_most_mib=0.5,
    ),
    *(
        Case(
            f"weights {where}",
            "jax #26618",
            "Weights ride in the carry although no step changes them.",
            lambda where=where: weights(where)(lax.scan),
            {"gradient": PLAIN, "plain_mib": 2.93, "temp_at_most_mib": 0.15},
            lambda: weights("closed over")(blocks)[0],
        )
        for where in ("closed over", "in the carry")
    ),
    Case(
        "a cache in the carry",
        "jax #26618",
        "Each step writes one row and reads one; slots of whole caches cost more.",
        cache,
        {"gradient": PLAIN, "plain_mib": 1.57, "temp_at_most_mib": 1.6},
        lambda: cache()[0],
    ),
    loop(
        "training, by its learning rate",
        "optax users",
        "A whole training run is differentiated.",
        training,
        mode="reverse",
        gradient=PLAIN,
        plain_mib=3.14,
        temp_at_most_mib=0.6,
    ),
]

# ---------------------------------------------------------------- elsewhere


def offloaded(where: str) -> Program:
    """Residual layers whose named value goes to the host: inside the layer, its carry at the start, or at the end."""
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["x"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def layer(h, W):
        h = checkpoint_name(h, "x") if where == "carry in" else h
        y = jnp.tanh(h @ W)
        y = checkpoint_name(y, "x") if where == "inside" else y
        h = h + jnp.tanh(y @ W)
        return checkpoint_name(h, "x") if where == "carry out" else h, None

    def f(W, h):
        return jnp.sum(lax.scan(jax.checkpoint(layer, policy=policy, prevent_cse=False), h, W)[0] ** 2)

    return f, (shape(32, 256, 256), shape(4096, 256))


def host_function() -> Program:
    return lambda v: jax.pure_callback(lambda v: np.asarray(v), shape(64), v), (jnp.arange(64.0),)


ELSEWHERE = [
    *(
        Case(
            f"offload, named {where}",
            "jax #23869",
            "A name on the carry at the layer's end moved nothing to the host.",
            lambda where=where: offloaded(where),
            {"host_mib": host},
        )
        for where, host in (("inside", 128), ("carry in", 128), ("carry out", 0))
    ),
    Case(
        "a host function for an absent device",
        "jax #31292",
        "Its plan for a GPU that is not here failed deep inside.",
        host_function,
        {"value": jnp.arange(64.0), "refused": "a callback needs its device: plan it where one is"},
    ),
]

CASES = [*MEMORY, *ELSEWHERE]
