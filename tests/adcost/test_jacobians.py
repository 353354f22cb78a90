"""Jacobians and Hessians in chunks: those of JAX, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adcost

RNG = np.random.default_rng(0)


def f(tree, x, power=2):
    return {"y": jnp.sin(tree["a"] @ x) ** power, "s": jnp.sum(tree["b"]) * x[:2]}


TREE = {"a": RNG.normal(size=(3, 5)), "b": RNG.normal(size=(2, 2))}
X = RNG.normal(size=5)


def close(found, right):
    assert jax.tree.structure(found) == jax.tree.structure(right)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, right)


@given(
    st.sampled_from(["forward", "reverse"]),
    st.one_of(st.none(), st.integers(1, 30)),
    st.sampled_from([0, 1, -1, (0, 1), (1,)]),
)
def test_chunks_give_the_whole_jacobian(mode, chunk, argnums):
    right = jax.jacrev(f, argnums)(TREE, X)
    close(jax.jit(adcost.chunked_jacobian(f, argnums, mode, chunk))(TREE, X), right)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_of_every_shape(rows, columns, data):
    a = RNG.normal(size=(rows, columns))
    chunk = data.draw(st.integers(1, max(rows, columns)))
    for mode in ("forward", "reverse"):
        close(adcost.chunked_jacobian(lambda x: a @ x, 0, mode, chunk)(np.ones(columns)), jnp.asarray(a))


def test_the_cheaper_mode_is_chosen_where_all_fits():
    wide = adcost.jacobian(lambda x: jnp.sin(x[:3]) * jnp.sum(x), jnp.ones(500))
    assert (wide.mode, wide.chunk, wide.seeds) == ("reverse", 3, 3)
    tall = adcost.jacobian(lambda x: jnp.sin(jnp.outer(jnp.arange(500.0), x)), jnp.ones(3))
    assert (tall.mode, tall.chunk) == ("forward", 3)
    close(tall.apply(jnp.ones(3)), jax.jacfwd(lambda x: jnp.sin(jnp.outer(jnp.arange(500.0), x)))(jnp.ones(3)))


def network(x):
    for _ in range(3):
        x = jnp.sin(jnp.cumsum(x) / 100) * x
    return x


def test_the_largest_chunk_that_fits_is_taken():
    x = jnp.linspace(0, 1, 400)
    whole = adcost.jacobian(network, x)
    assert whole.chunk == 400
    least = 400 * 400 * 8  # the Jacobian itself
    memory = least + (whole.plan.total - least) // 4
    small = adcost.jacobian(network, x, memory=memory)
    assert small.plan.total <= memory
    assert 10 < small.chunk < 400
    close(small.apply(x), jax.jacfwd(network)(x))
    close(eval(small.code, {"adcost": adcost, "f": network})(x), small.apply(x))


def test_no_product_is_made_for_nothing():
    a = jnp.ones((61, 61))
    found = adcost.jacobian(lambda x: jnp.tanh(a @ x), jax.ShapeDtypeStruct((61,), "float32"), memory=80_000)
    passes = -(-61 // found.chunk)
    assert 1 < passes < 61
    assert found.chunk == -(-61 // passes)


def test_types_are_those_of_jax():
    def rounded(x):
        return jnp.sin(x).astype("float32")

    x = jnp.arange(3.0)
    assert adcost.chunked_jacobian(rounded, 0, "reverse")(x).dtype == jax.jacrev(rounded)(x).dtype
    assert adcost.chunked_jacobian(rounded, 0, "forward")(x).dtype == jax.jacfwd(rounded)(x).dtype


def test_what_cannot_fit_is_said_with_the_least():
    with pytest.raises(
        ValueError, match=r"no Jacobian fits into 9.77 KiB on cpu: .* mode, 1 at a time, takes"
    ) as found:
        adcost.jacobian(network, jnp.linspace(0, 1, 400), memory=10_000)
    assert "\n" not in str(found.value)


def deep(x):
    for i in range(1, 4):
        x = jnp.tanh(jnp.cos(jnp.outer(jnp.arange(300.0), i + jnp.arange(300.0))) @ x / 10)
    return jnp.sum(x**2)


def test_a_hessian_in_chunks():
    x = jnp.linspace(-1, 1, 300)
    right = jax.hessian(deep)(x)
    whole = adcost.hessian(deep, x)
    close(whole.apply(x), right)
    small = adcost.hessian(deep, x, memory=whole.plan.total * 2 // 3)
    assert small.plan.total <= whole.plan.total * 2 // 3
    assert small.chunk < 300
    close(small.apply(x), right)
    close(eval(small.code, {"adcost": adcost, "jax": jax, "f": deep})(x), right)


def test_a_hessian_of_several_arguments():
    def g(a, b):
        return jnp.sum(jnp.sin(a)) * jnp.sum(b**3)

    a, b = jnp.ones(2), jnp.arange(3.0)
    close(adcost.hessian(g, a, b, argnums=(0, 1)).apply(a, b), jax.hessian(g, (0, 1))(a, b))


def test_nothing_runs_for_shapes():
    found = adcost.jacobian(network, jax.ShapeDtypeStruct((300,), "float32"), memory="1 MiB")
    assert found.plan.fits


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adcost.chunked_jacobian(f, 0, "sideways"), "mode='sideways' is none"),
        (lambda: adcost.chunked_jacobian(f, 0, "forward", 0), "a chunk of 0"),
        (lambda: adcost.jacobian(lambda x: x * 1j, jnp.ones(3)), "complex numbers"),
        (lambda: adcost.jacobian(network, jnp.ones(3), argnums=2), "argnums"),
        (lambda: adcost.jacobian(lambda x: x, jnp.arange(3)), "nothing in argnums 0 has a derivative"),
    ],
)
def test_what_makes_no_sense_gets_a_line(call, said):
    with pytest.raises(ValueError, match=said) as found:
        call()
    assert "\n" not in str(found.value)
