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


@pytest.mark.parametrize(
    ("window", "pairs"),
    [
        ("size=3", 6 * 3),  # 8 numbers, 3 of a kernel
        ("size=3 pad=1_1", 8 * 3 - 2),  # two products with what lies beyond the edges
        ("size=3 stride=2", 3 * 3),
        ("size=3 pad=0_0 rhs_dilate=2", 4 * 3),
        ("size=1 lhs_dilate=2", 8),  # 15 places, 7 of them holes
    ],
)
def test_a_convolution_makes_the_products_with_its_input(window, pairs):
    out = {"size=3": 6, "size=3 pad=1_1": 8, "size=3 stride=2": 3, "size=3 pad=0_0 rhs_dilate=2": 4}.get(window, 15)
    listing = read(
        f"""ENTRY %main (a: f32[5,8,7], b: f32[3,7,2]) -> f32[5,{out},2] {{
  %a = f32[5,8,7] parameter(0)
  %b = f32[{window[5]},7,2] parameter(1)
  ROOT %c = f32[5,{out},2] convolution(%a, %b), window={{{window}}}, dim_labels=b0f_0io->b0f
}}"""
    )
    assert flops(listing) == 2 * 5 * 2 * 7 * pairs


def test_a_product_that_is_written_as_a_multiplication_is_counted():
    listing = read(
        """%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main (a: f32[5,8], b: f32[8]) -> f32[5] {
  %a = f32[5,8] parameter(0)
  %b = f32[8] parameter(1)
  %zero = f32[] constant(0)
  %wide = f32[5,8] broadcast(%b), dimensions={1}
  %scaled = f32[5,8] multiply(%a, %a), metadata={op_name="jit(f)/mul"}
  %pairs = f32[5,8] multiply(%scaled, %wide), metadata={op_name="jit(f)/dot_general"}
  ROOT %c = f32[5] reduce(%pairs, %zero), dimensions={1}, to_apply=%add, metadata={op_name="jit(f)/dot_general"}
}"""
    )
    assert flops(listing) == 2 * 5 * 8


def test_what_is_not_known_is_not_counted():
    assert flops_of(jnp.linalg.svd, SQUARE) is None


def test_a_loop_on_the_data_has_no_number():
    def f(a):
        return lax.while_loop(lambda a: a[0, 0] < 9.0, lambda a: a @ a, a)

    with pytest.raises(UnknownTripCount):
        flops_of(f, SQUARE)
    assert matrix_products(text(over(lambda a: jnp.tanh(a @ a), 7), SQUARE)) == 7
