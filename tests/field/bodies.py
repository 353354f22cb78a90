"""Loops inside other constructs, and loops whose body has rules or structure of its own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from tests.field.case import PLAIN, Case, Program, loop, normal

# ---------------------------------------------------------------- where a loop hides


def steps(scan, x, length=256, **options):
    return scan(lambda h, _: (h + 0.01 * jnp.sin(h) * jnp.tanh(h), None), x, None, length=length, **options)[0]


def with_a_rule(run):
    @jax.custom_vjp
    def f(x):
        return run(x)

    f.defvjp(lambda x: jax.vjp(run, x), lambda pullback, g: pullback(g))
    return f


PLACES = {
    "bare": lambda run, x: run(x),
    "jit": lambda run, x: jax.jit(run)(x),
    "jax.checkpoint": lambda run, x: jax.checkpoint(run)(x),
    "cond": lambda run, x: lax.cond(x[0] > -1, run, lambda x: x, x),
    "switch": lambda run, x: lax.switch(1, [lambda x: x, run], x),
    "custom_vjp": lambda run, x: with_a_rule(run)(x),
    "custom_jvp": lambda run, x: jax.nn.relu(run(x)),
    "vmap": lambda run, x: jax.vmap(run)(x.reshape(4, -1)).ravel(),
    "lax.map": lambda run, x: lax.map(run, x.reshape(4, -1)).ravel(),
    "a linear solve": lambda run, x: lax.custom_linear_solve(
        lambda v: 2 * v, run(x), lambda _, b: b / 2, symmetric=True
    ),
    "an inner gradient": lambda run, x: jax.grad(lambda y: jnp.sum(run(y)))(x),
}


def place(name: str):
    def build(scan) -> Program:
        return lambda x: jnp.sum(PLACES[name](lambda x: steps(scan, x), x) ** 2), (jnp.linspace(0, 1, 2048),)

    return build


def of_length(length: int, **options):
    def build(scan) -> Program:
        return lambda x: jnp.sum(steps(scan, x, length, **options) ** 2), (jnp.linspace(0, 1, 2048),)

    return build


hidden = "Rewriting the loops of a program stops at constructs that hold a program of their own."
HIDDEN = [
    *(
        loop(
            f"a loop inside {name}",
            "jax #27748, #8239",
            hidden,
            place(name),
            gradient=PLAIN,
            plain_mib={"lax.map": 10.02, "an inner gradient": 34.0}.get(name, 8.02),
            temp_at_most_mib={"an inner gradient": 4.0}.get(name, 0.6),
        )
        for name in PLACES
    ),
    loop(
        "a loop from the end",
        "jax #27748",
        hidden,
        of_length(256, reverse=True),
        gradient=PLAIN,
        plain_mib=8.02,
        temp_at_most_mib=0.6,
    ),
    loop("a loop of one step", "jax #27748", "The smallest loop.", of_length(1), gradient=PLAIN),
    Case(
        "a loop of no step",
        "jax #27748",
        "Smaller still.",
        lambda: of_length(0)(lax.scan),
        {"gradient": lambda x: 2 * x},
    ),
]

# ---------------------------------------------------------------- bodies with rules or structure of their own


@jax.custom_vjp
def clipped(x):
    return x * 1.0


clipped.defvjp(lambda x: (x * 1.0, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))


@jax.custom_jvp
def spike(x):
    return jnp.where(x > 0, x, 0.0)


spike.defjvp(lambda p, t: (spike(p[0]), jax.nn.sigmoid(5 * p[0]) * t[0]))
BODIES = {
    "a gradient that is clipped": lambda W, h, x: clipped(jnp.tanh(W @ h + x)),
    "a surrogate gradient": lambda W, h, x: spike(W @ h + x),
    "gelu and logsumexp": lambda W, h, x: jax.nn.gelu(jnp.tanh(W @ h) + x) - 0.1 * jax.nn.logsumexp(h),
    "a branch": lambda W, h, x: lax.cond(x[0] > 0, lambda h: jnp.tanh(W @ h), lambda h: h * 0.9, h) + x,
    "a named value under jax.checkpoint": jax.checkpoint(lambda W, h, x: checkpoint_name(jnp.tanh(W @ h), "h") + x),
    "a loop of fixed length": lambda W, h, x: lax.fori_loop(0, 5, lambda _, h: jnp.tanh(W @ h), h) + x,
    "a while loop under stop_gradient": lambda W, h, x: (
        jnp.tanh(W @ h) * lax.stop_gradient(lax.while_loop(lambda v: v > 1, lambda v: v / 2, 8.0 + jnp.sum(x)))
    ),
    "noise by a folded key": lambda W, h, x: (
        jnp.tanh(W @ h) + jax.random.normal(jax.random.fold_in(jax.random.key(0), x[0].astype(int)), (8,))
    ),
    "a callback": lambda W, h, x: (jax.debug.callback(lambda _: None, h[0]), jnp.tanh(W @ h) + x)[1],
    "a linear solve": lambda W, h, x: jnp.linalg.solve(jnp.eye(8) * 3 + W, h) + x,
}
W8, X8 = normal(8, 8, scale=1 / 3), normal(24, 8)


def body(name: str):
    def build(scan) -> Program:
        def f(W):
            return jnp.sum(scan(lambda h, x: (BODIES[name](W, h, x), None), jnp.ones(8), X8)[0] ** 2)

        return f, (W8,)

    return build


def key_in_carry(scan) -> Program:
    def f(W):
        def step(s, x):
            h, key = s
            key, used = jax.random.split(key)
            return (jnp.tanh(W @ h) * jax.random.bernoulli(used, 0.8, (8,)) + x, key), None

        return jnp.sum(scan(step, (jnp.zeros(8), jax.random.key(1)), X8)[0][0] ** 2)

    return f, (W8,)


def rounded_carry() -> Program:
    def f(W):
        step = lambda h, _: ((W @ h.astype(jnp.float32)), None)  # noqa: E731
        return jnp.sum(lax.scan(step, jnp.ones(8, jnp.bfloat16), None, length=5)[0])

    return f, (W8,)


def closed_over_tracer(scan) -> Program:
    """The weights reach the loop through a closure, as in any training step."""

    def f(w, xs):
        run = lambda xs: jnp.sum(scan(lambda h, x: (jnp.tanh(h * w + x), None), jnp.zeros(8), xs)[0])  # noqa: E731
        return run(xs)

    return f, (jnp.ones(8), X8)


def complex_carry(scan) -> Program:
    def f(k):
        step = lambda z, _: (z * jnp.exp(1j * k) + 0.1 * jnp.conj(z), None)  # noqa: E731
        return jnp.abs(scan(step, jnp.complex64(1 + 1j), None, length=40)[0]) ** 2

    return f, (0.3,)


def gated(scan) -> Program:
    """A module of equinox as an argument: its leaves include functions."""
    import equinox as eqx

    cell, readout = eqx.nn.GRUCell(8, 32, key=jax.random.key(0)), eqx.nn.MLP(32, "scalar", 16, 2, key=jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (500, 8))

    def f(model, xs):
        cell, readout = model
        return readout(scan(lambda h, x: (cell(x, h), None), jnp.zeros(32), xs)[0])

    return f, ((cell, readout), xs)


def hidden_markov(scan) -> Program:
    from numpyro import distributions as dist
    from numpyro import factor, sample
    from numpyro.infer.util import initialize_model

    y = normal(2000)

    def model(y):
        P = sample("P", dist.Dirichlet(jnp.ones((8, 8))).to_event(1))
        mu = sample("mu", dist.Normal(0, 2).expand([8]).to_event(1))

        def step(a, yt):
            return jax.nn.logsumexp(a[:, None] + jnp.log(P), 0) + dist.Normal(mu, 1.0).log_prob(yt), None

        factor("evidence", jax.nn.logsumexp(scan(step, jnp.zeros(8) - jnp.log(8), y)[0]))

    start = initialize_model(jax.random.PRNGKey(0), model, model_args=(y,))
    return start.potential_fn, (start.param_info.z,)


def kalman() -> Program:
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM

    model = LinearGaussianSSM(6, 2)
    params, _ = model.initialize(jax.random.PRNGKey(0))
    y = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 2)), jnp.float32)

    def f(F):
        changed = params._replace(dynamics=params.dynamics._replace(weights=F))
        return -model.marginal_log_prob(changed, y) / len(y)

    return f, (params.dynamics.weights,)


rules = "The gradient must be that of the program, whatever its body is made of."
WITHIN = [
    *(
        loop(
            f"a body with {name}",
            "jax #27144, #4173",
            rules,
            body(name),
            gradient=PLAIN,
            mode="reverse",
            **({"only": True} if "clipped" in name else {}),
        )
        for name in BODIES
    ),
    loop("a key in the carry", "jax #27144", rules, key_in_carry, gradient=PLAIN, mode="reverse"),
    Case(
        "a carry that changes its type",
        "jax #27144",
        "bfloat16 goes in, float32 comes out.",
        rounded_carry,
        {"refused": "scan's carry keeps its type: say which leaf turns from bfloat16 into float32"},
    ),
    loop(
        "weights by closure",
        "jax #1907",
        "Shared weights reach the loop's body through a closure.",
        closed_over_tracer,
        gradient=PLAIN,
        mode="reverse",
    ),
    loop("a complex carry", "jaxley #16", "Wave functions and filters.", complex_carry, gradient=PLAIN, mode="either"),
    loop(
        "a module as an argument",
        "equinox users",
        "A model's leaves hold activation functions beside arrays.",
        gated,
        needs=("equinox",),
        mode="reverse",
        gradient=PLAIN,
        plain_mib=0.55,
        temp_at_most_mib=0.2,
    ),
    loop(
        "hidden Markov chain",
        "numpyro #1010",
        "The log density of a long chain, gradient after gradient.",
        hidden_markov,
        needs=("numpyro",),
        mode="reverse",
        gradient=PLAIN,
        plain_mib=0.63,
        temp_at_most_mib=0.15,
    ),
    Case(
        "Kalman filter",
        "dynamax users",
        "The likelihood of a long series by somebody else's filter.",
        kalman,
        {"mode": "reverse", "gradient": PLAIN, "plain_mib": 0.64},
        None,
        ("dynamax",),
    ),
]

CASES = [*HIDDEN, *WITHIN]
