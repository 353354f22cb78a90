"""JAX's new implementations, which are not yet the default: what walks a program must meet them, or say what it met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from packaging.version import Version

from adcost import _jax, binomial, blocks, checkpointed_chain, evaluation_trace, sqrt, which_mode, while_loop
from adcost.rulers.count import count, residual_bytes

V = np.ones(4)
KNOWN = [flag for flag in _jax.FLAGS if hasattr(jax.config, flag)]


@pytest.fixture(params=KNOWN)
def flag(request):
    """Each of the flags that this JAX knows, set."""
    _jax.set_flags({request.param: True})
    yield
    _jax.set_flags({})


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@pytest.mark.parametrize(
    ("run", "flops"),
    [
        (lambda v: jax.checkpoint(lambda v: jnp.sin(jnp.sin(v)))(v), 8),
        (lambda v: lax.scan(lambda h, _: (jnp.sin(h), None), v, None, length=7)[0], 28),
        (lambda v: jnp.sum(doubled(v)), 7),
        (jax.grad(lambda v: jnp.sum(doubled(v))), 11),
    ],
)
@pytest.mark.usefixtures("flag")
def test_flops_are_the_same_under_every_flag(run, flops):
    assert count(run, V).flops == flops


def recomputed(v):
    return jnp.sum(jax.checkpoint(lambda v: jnp.sin(jnp.sin(v)))(v))


def looped(v):
    return lax.scan(lambda h, _: (jax.checkpoint(jnp.sin)(h), None), v, None, length=5)[0].sum()


@pytest.mark.skipif("jax_remat3" not in KNOWN, reason="this JAX has no jax_remat3")
def test_recomputation_is_counted_by_both_implementations():
    for flags in ({}, {"jax_remat3": True}):
        _jax.set_flags(flags)
        assert count(jax.grad(recomputed), V)["sin"] == 3, flags
        assert count(jax.grad(looped), V)["cos"] == 5, flags
    _jax.set_flags({})


def layer(w, h):
    return jnp.tanh(h @ w)


def online(w, h):
    def body(state):
        i, h = state
        return i + 1, layer(w[i], h)

    return while_loop(lambda state: state[0] < 9, body, (0, h), max_steps=20, slots=3)[1]


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "chain",
    [*(checkpointed_chain(layer, schedule) for schedule in (sqrt(9), binomial(9, 2), blocks(9, 2, 2, 3))), online],
    ids=["sqrt", "binomial", "blocks", "while_loop"],
)
@pytest.mark.usefixtures("flag")
def test_a_schedule_runs_under_every_flag(chain, jit):
    weights = np.random.default_rng(0).normal(size=(9, 4, 4)) / 2

    def plain(w, h):
        for i in range(9):
            h = layer(w[i], h)
        return h

    def gradient(chain):
        return jax.grad(lambda w: jnp.sum(chain(w, jnp.ones((3, 4))) ** 2))

    np.testing.assert_allclose(jit(gradient(chain))(weights), gradient(plain)(weights), rtol=1e-12)


@pytest.mark.usefixtures("flag")
def test_an_evaluation_trace_goes_through_what_is_called():
    def f(x):
        return doubled(jax.checkpoint(jnp.sin)(x))

    assert evaluation_trace(f, 2.0)[-1].value == pytest.approx(2 * np.sin(2.0))


def test_an_unknown_flag_is_named():
    assert _jax.absent_flag({"jax_no_such": True}) == f"JAX {jax.__version__} has no jax_no_such"
    assert _jax.absent_flag({}) is None


@pytest.mark.usefixtures("flag")
def test_residuals_and_modes_are_the_same_under_every_flag():
    assert residual_bytes(lambda v: jnp.sum(jax.checkpoint(jnp.sin)(v)), V) == 0
    assert residual_bytes(lambda v: jnp.sum(jnp.sin(doubled(v))), V) == 4 * 8
    matrix = jnp.ones((3, 40))
    assert which_mode(lambda x: jax.checkpoint(jnp.tanh)(matrix @ x), jnp.ones(40)).mode == "reverse"


def test_flags_go_back_to_what_they_were():
    before = {name: getattr(jax.config, name) for name in KNOWN}
    _jax.set_flags(dict.fromkeys(KNOWN, True))
    _jax.set_flags({})
    assert {name: getattr(jax.config, name) for name in KNOWN} == before


# Uses of jax.checkpoint: which give the same under its new implementation, and which it refuses.

X = np.random.default_rng(0).normal(size=(6, 6)) / 3
policies = jax.checkpoint_policies


def named_sum(x):
    return jnp.sum(jnp.sin(checkpoint_name(x @ x, "product")))


def over_a_scan(x):
    layer = jax.checkpoint(lambda h: jnp.tanh(h @ h))
    return lax.scan(lambda h, _: (layer(h), None), x, None, length=3)[0].sum()


def with_policy(policy):
    return jax.grad(jax.checkpoint(named_sum, policy=policy))


USES = {
    "gradient": jax.grad(jax.checkpoint(named_sum)),
    "barriers off": jax.grad(jax.checkpoint(named_sum, prevent_cse=False)),
    "static argument": jax.grad(lambda x: jax.checkpoint(lambda x, k: named_sum(x) * k, static_argnums=1)(x, 2)),
    "tangent": lambda x: jax.jvp(jax.checkpoint(named_sum), (x,), (x,))[1],
    "linearized": lambda x: jax.linearize(jax.checkpoint(named_sum), x)[1](x),
    "gradient of a gradient": jax.grad(lambda x: jnp.sum(jax.grad(jax.checkpoint(named_sum))(x) ** 2)),
    "nested": jax.grad(jax.checkpoint(lambda x: jax.checkpoint(named_sum)(jnp.cos(x)))),
    "in a scan": jax.grad(over_a_scan),
    "around a scan": jax.grad(jax.checkpoint(over_a_scan)),
    "everything": with_policy(policies.everything_saveable),
    "nothing": with_policy(policies.nothing_saveable),
    "dots": with_policy(policies.dots_saveable),
    "names": with_policy(policies.save_only_these_names("product")),
    "other names": with_policy(policies.save_anything_except_these_names("product")),
    "batch": lambda x: jax.vmap(jax.grad(jax.checkpoint(named_sum)))(jnp.stack([x, 2 * x])),
    "hessian": jax.hessian(jax.checkpoint(named_sum)),
}
REFUSED_BEFORE_0_12 = {"batch", "hessian"}  # a named value had no rule for batches


@pytest.mark.skipif("jax_remat3" not in KNOWN, reason="this JAX has no jax_remat3")
@pytest.mark.parametrize("use", USES)
def test_what_remat3_gives_is_the_same_or_is_refused_by_name(use):
    expected = USES[use](X)
    _jax.set_flags({"jax_remat3": True})
    try:
        if use in REFUSED_BEFORE_0_12 and Version(jax.__version__) < Version("0.12"):
            with pytest.raises(NotImplementedError, match="must implement `batch`"):
                USES[use](X)
        else:
            np.testing.assert_allclose(USES[use](X), expected, rtol=1e-13, atol=1e-15)
    finally:
        _jax.set_flags({})
