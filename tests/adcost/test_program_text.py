"""Flops of compiled programs: products and LAPACK's calls, with the trips of loops, dead ones left out."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.scipy.linalg import lu_factor, lu_solve

from adcost.targets.listing import read
from adcost.targets.program_text import UnknownTripCount, flops, matrix_products

N = 32
SQUARE = jax.ShapeDtypeStruct((N, N), jnp.float32)


def text(f, *shapes):
    return jax.jit(f).lower(*shapes).compile().as_text()


def flops_of(f, *shapes):
    return flops(read(text(f, *shapes)))


def over(f, length):
    return lambda a: lax.scan(lambda h, _: (f(h), None), a, length=length)[0]


@pytest.mark.parametrize(
    ("f", "cubes"),
    [
        (lambda a: a @ a, 2),
        (lambda a: jnp.tanh(a @ a) @ a, 4),
        (over(lambda a: jnp.tanh(a @ a), 7), 14),
        (over(over(lambda a: jnp.tanh(a @ a), 3), 5), 30),
        (lambda a: (a @ a, jnp.sum(a @ (a + 1)))[0], 2),  # a product that nobody uses
        (jnp.linalg.cholesky, 1 / 3),
        (lambda a: lu_factor(a)[0], 2 / 3),
        (lambda a: lu_solve(lu_factor(a), a), 2 / 3 + 2),
        (lambda a: lu_solve(lu_factor(a), a[0])[:, None] + a, 2 / 3 + 2 / N),
        (jax.vmap(lambda a: lu_factor(a)[0]), 2 / 3 * 5),
    ],
)
def test_flops_of_what_is_executed(f, cubes):
    shape = jax.ShapeDtypeStruct((5, N, N), jnp.float32) if cubes == 2 / 3 * 5 else SQUARE
    assert flops_of(f, shape) == pytest.approx(cubes * N**3)


def test_what_is_not_known_is_not_counted():
    assert flops_of(jnp.linalg.svd, SQUARE) is None


def test_a_loop_on_the_data_has_no_number():
    def f(a):
        return lax.while_loop(lambda a: a[0, 0] < 9.0, lambda a: a @ a, a)

    with pytest.raises(UnknownTripCount):
        flops_of(f, SQUARE)
    assert matrix_products(text(over(lambda a: jnp.tanh(a @ a), 7), SQUARE)) == 7
