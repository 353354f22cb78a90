"""The table of primitives: complete, and right where XLA's own count of one operation, or a textbook, can say so."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives as public

from adcost import _jax
from adcost.rulers import primitives
from adcost.rulers.count import count

M, N = 24, 16
KEY = jax.random.key(0)


def shape(*sizes, dtype="float32"):
    return jax.ShapeDtypeStruct(sizes, dtype)


ROW, TALL, SQUARE = shape(N), shape(M, N), shape(N, N)
IMAGE, WEIGHTS = shape(2, 6, 14, 14), shape(9, 6, 3, 3)


def of_xla(f, *args):
    """Flops and transcendentals by XLA's cost analysis."""
    cost = jax.jit(f).lower(*args).compile().cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost.get("flops", 0.0) + cost.get("transcendentals", 0.0)


def test_every_public_primitive_is_in_the_table():
    names = {p.name for p in vars(public).values() if hasattr(p, "bind")}
    assert len(names) > 100
    missing = sorted(name for name in names if not primitives.is_known(name))
    assert not missing, "give them a rule, or None"


ONE_OPERAND = """
neg abs sign sqrt rsqrt cbrt exp exp2 expm1 log log1p sin cos tan tanh logistic floor ceil round erf square
""".split()
TWO_OPERANDS = "add sub mul div max min pow rem atan2".split()


EXPANDED = {"cbrt", "exp2", "log1p", "expm1", "erf", "tan", "round", "sign", "logistic"}


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_elementwise_rules_are_those_of_xla(name):
    """XLA writes some of these as several of its own operations; a call counts as one here."""
    run = getattr(lax, name)
    assert count(run, TALL).flops == M * N
    assert of_xla(run, TALL) == M * N or (name in EXPANDED and of_xla(run, TALL) > M * N)


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_rules_of_two_operands_are_those_of_xla(name):
    run = getattr(lax, name)
    assert count(run, TALL, TALL).flops == M * N
    assert of_xla(run, TALL, TALL) == M * N


def window(f, unit, strides=(1, 2), padding="VALID"):
    return lambda x: lax.reduce_window(x, unit, f, (3, 2), strides, padding)


COUNTED_AS_XLA = {
    "dot": (lambda a, b: a.T @ b, (TALL, shape(M, 7))),
    "batched dot": (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (shape(5, M, N), shape(5, N, 3))),
    "sum": (lambda a: jnp.sum(a, 0), (TALL,)),
    "max": (lambda a: jnp.max(a, 1), (TALL,)),
    "product": (lambda a: jnp.prod(a), (TALL,)),
    "any reduction": (lambda a: lax.reduce(a, np.float32(1), lambda x, y: x * y + x, (0,)), (TALL,)),
    "sums of windows": (window(lax.add, 0.0), (TALL,)),
    "maxima of windows": (window(lax.max, -np.inf, padding="SAME"), (TALL,)),
    "any windows": (window(lambda x, y: x * y + x, np.float32(1)), (TALL,)),
    "scatter": (lambda a, b: a.at[np.arange(8) * 2].add(b), (TALL, shape(8, N))),
}
CONVOLUTIONS = {
    "valid": {"padding": "VALID"},
    "same": {"padding": "SAME"},
    "strided": {"window_strides": (2, 3), "padding": "SAME"},
    "dilated kernel": {"padding": "SAME", "rhs_dilation": (2, 1)},
    "dilated input": {"padding": ((2, 2), (2, 2)), "lhs_dilation": (3, 2)},
    "cropped": {"padding": ((-1, 0), (0, -2))},
}


@pytest.mark.parametrize("name", COUNTED_AS_XLA)
def test_products_reductions_and_windows_are_counted_as_xla_counts(name):
    run, args = COUNTED_AS_XLA[name]
    assert count(run, *args).flops == pytest.approx(of_xla(run, *args), rel=1e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_counted_as_xla_counts(name):
    options = {"window_strides": (1, 1), **CONVOLUTIONS[name]}

    def run(x, w):
        return lax.conv_general_dilated(x, w, **options)

    assert count(run, IMAGE, WEIGHTS).flops == of_xla_convolution(run, IMAGE, WEIGHTS)


def of_xla_convolution(run, x, w):
    """Before optimisation: XLA on a CPU may turn a convolution into a product of other cost."""
    cost = jax.jit(run).lower(x, w).cost_analysis()
    return cost["flops"]


@pytest.mark.parametrize("groups", [2, 6])
def test_a_grouped_convolution_counts_what_its_outputs_see(groups):
    def run(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", feature_group_count=groups)

    weights = shape(12, 6 // groups, 3, 3)
    assert count(run, IMAGE, weights).flops == 2 * (2 * 12 * 12 * 12) * (6 // groups * 9)


def test_the_gradients_of_a_strided_convolution_cost_what_it_costs():
    """Each pair of an input and a weight that met, meets once more in each of the two gradients."""

    def run(x, w):
        return lax.conv_general_dilated(x, w, (3, 3), "VALID")

    once = count(run, IMAGE, WEIGHTS).flops
    assert count(lambda x, w: jax.vjp(run, x, w)[1](run(x, w)), IMAGE, WEIGHTS)["conv_general_dilated"] == 4
    by_input = count(lambda x, w, g: jax.linear_transpose(lambda x: run(x, w), x)(g), IMAGE, WEIGHTS, shape(2, 9, 4, 4))
    assert by_input.flops == once


TEXTBOOK = {
    "cholesky": (lambda a: lax.linalg.cholesky(a, symmetrize_input=False), SQUARE, N**3 / 3),
    "lu": (lambda a: lax.linalg.lu(a)[0], SQUARE, 2 / 3 * N**3),
    "lu of a tall matrix": (lambda a: lax.linalg.lu(a)[0], TALL, 2 * (M * N**2 / 2 - N**3 / 6)),
    "eigh": (lambda a: lax.linalg.eigh(a)[0], SQUARE, 9 * N**3),
    "eig": (lambda a: jnp.linalg.eig(a)[0], SQUARE, 25 * N**3),
    "eigvals": (jnp.linalg.eigvals, SQUARE, 10 * N**3),
    "qr": (lambda a: jnp.linalg.qr(a)[0], SQUARE, 8 / 3 * N**3),
    "qr of a tall matrix": (lambda a: jnp.linalg.qr(a)[0], TALL, 2 * (2 * M * N**2 - 2 / 3 * N**3)),
    "schur": (lambda a: jsp.linalg.schur(a)[0], SQUARE, 25 * N**3),
    "hessenberg": (lambda a: lax.linalg.hessenberg(a)[0], SQUARE, 10 / 3 * N**3),
    "triangular solve": (lambda a: lax.linalg.triangular_solve(a, a, left_side=True), SQUARE, N**3),
    "tridiagonal solve": (lambda d: lax.linalg.tridiagonal_solve(d, d, d, d[:, None]), ROW, 8 * N),
    "fft": (lambda a: jnp.fft.fft(a), shape(N, dtype="complex64"), 5 * N * np.log2(N)),
    "real fft": (jnp.fft.rfft, ROW, 2.5 * N * np.log2(N)),
    "sort": (lax.sort, ROW, N * np.log2(N)),
    "top k": (lambda a: lax.top_k(a, 4)[0], ROW, N * np.log2(4)),
    "ragged dot": (lax.ragged_dot, (TALL, shape(4, N, 5), shape(4, dtype="int32")), 2 * M * N * 5),
    "complex product": (lambda a: a @ a, shape(N, N, dtype="complex64"), 8 * N**3),
    "complex elementwise": (lambda a: a * a, shape(N, dtype="complex64"), 6 * N),
    "bfloat16": (lambda a: jnp.sin(a) * a, shape(N, dtype="bfloat16"), 2 * N),
    "cumulative sum": (lax.cumsum, ROW, N),
    "segments": (lambda a: jax.ops.segment_sum(a, np.arange(N) % 7, 7), ROW, N),
    "clamp": (lambda a: lax.clamp(a, a, a), ROW, N),
    "erfc": (lax.erfc, ROW, N),
    "lgamma": (lax.lgamma, ROW, N),
    "digamma": (lax.digamma, ROW, N),
    "argmax": (lambda a: lax.argmax(a, 0, np.int32), ROW, N),
    "pulled back through windows": (
        lambda a: jax.vjp(lambda a: lax.reduce_window(a, -np.inf, lax.max, (3, 2), (3, 2), "VALID"), a)[1](
            jnp.ones((M // 3, N // 2), a.dtype)
        )[0],
        TALL,
        2 * M * N - M // 3 * (N // 2),
    ),
    "integers": (lambda a: jnp.sort(a) @ a, shape(N, dtype="int32"), 0),
    "gather": (lambda a: a[np.array([1, 3, 3])], ROW, 0),
    "reshapes": (lambda a: jnp.pad(jnp.roll(a, 3)[::-1], 2).astype("bfloat16"), ROW, 0),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_other_rules_are_the_leading_term_of_the_algorithm(name):
    run, args, flops = TEXTBOOK[name]
    counted = count(run, *(args if isinstance(args, tuple) else (args,)))
    assert counted.flops == pytest.approx(flops, rel=0.02, abs=4), counted
    assert not counted.unknown


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("igamma", lambda a: jsp.special.gammainc(2.0, a)),
        ("regularized_incomplete_beta", lambda a: jsp.special.betainc(2.0, 3.0, a)),
        ("pure_callback", lambda a: jax.pure_callback(lambda x: x, ROW, a)),
    ],
)
def test_what_has_no_rule_says_so(name, run):
    assert name in count(run, ROW).unknown


def test_sparse_products_count_their_stored_entries():
    from jax.experimental import sparse

    matrix = sparse.BCOO.fromdense(jnp.eye(N))
    counted = count(lambda v: matrix @ v, ROW)
    assert counted.flops == pytest.approx(2 * N, rel=0.5)
    assert not counted.unknown


def test_sparse_and_other_products_count_what_meets():
    from jax.experimental import sparse

    matrix = sparse.BCOO.fromdense(jnp.ones((20, 20)), nse=400)
    assert count(lambda b: matrix @ b, jnp.ones((20, 3))).flops == 2 * 400 * 3
    assert count(lambda b: b @ matrix, jnp.ones((5, 20))).flops == 2 * 400 * 5
    assert count(lambda x: x.at[jnp.arange(5)].apply(jnp.sin), ROW).flops == 5
    assert count(jnp.prod, shape(8, dtype="complex64")).flops == 7 * 6
    assert count(lambda x: lax.reduce(x, np.float32(1), lambda a, b: a * b + a, (0,)), shape(0)).flops == 0
    full, thin = (
        count(lambda a, f=f: jnp.linalg.svd(a, full_matrices=f), shape(1000, 10)).flops for f in (True, False)
    )
    assert full > 20 * thin


def test_long_convolutions_are_counted_without_a_table_of_all_pairs():
    assert count(jnp.convolve, shape(100_000), shape(50_000)).flops == 2 * 100_000 * 50_000


def test_gathers_and_updates_move_what_they_touch():
    """Of a table of ten million, ten rows are read."""
    table, index = shape(10_000_000), shape(10, dtype="int32")
    assert count(lambda t, i: lax.dynamic_slice(t, (i[0],), (10,)), table, index).moved < 1000
    assert count(lambda t, i: t[i], table, index).moved < 2000
    assert count(lambda t: jnp.sort(t), ROW).moved == 2 * 4 * N


# Programs put together at random, without loops and calls of libraries: XLA's count of the program as written.

STEPS = {
    "tanh": lambda x, w: jnp.tanh(x),
    "product": lambda x, w: x @ w,
    "scaled": lambda x, w: x * 0.5 + 1.0,
    "normed": lambda x, w: x - jnp.mean(x, 1, keepdims=True),
    "rolled": lambda x, w: jnp.roll(x, 1, 0) * x,
    "softmax": lambda x, w: jnp.exp(x) / jnp.sum(jnp.exp(x), 1, keepdims=True),
    "transposed": lambda x, w: (w.T @ x.T).T,
    "checkpointed": lambda x, w: jax.checkpoint(lambda x: jnp.sin(x @ w))(x),
    "jitted": lambda x, w: jax.jit(lambda x: jnp.cos(x) @ w)(x),
}


@settings(max_examples=20)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5), st.sampled_from([4, 16, 33]))
def test_random_programs_are_counted_as_xla_counts(names, n):
    def run(x, w):
        for name in names:
            x = STEPS[name](x, w)
        return x

    args = shape(9, n), shape(n, n)
    cost = jax.jit(run).lower(*args).cost_analysis()
    assert count(run, *args).flops == pytest.approx(cost.get("flops", 0.0) + cost.get("transcendentals", 0.0), rel=0.02)


@settings(max_examples=20)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3), st.lists(st.integers(0, 4), max_size=3))
def test_loops_multiply_whatever_they_hold(names, lengths):
    def body(x, w):
        for name in names:
            x = STEPS[name](x, w)
        return x

    def run(x, w):
        step = lambda x: body(x, w)  # noqa: E731
        for depth, length in enumerate(lengths):
            step = (by_scan, by_while, by_fori)[depth % 3](step, length)
        return step(x)

    args = shape(5, 8), shape(8, 8)
    assert count(run, *args).flops == np.prod(lengths) * count(body, *args).flops


def by_scan(step, length):
    return lambda x: lax.scan(lambda x, _: (step(x), None), x, None, length=length)[0]


def by_while(step, length):
    return lambda x: lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, step(s[1])), (length, x))[1]


def by_fori(step, length):
    return lambda x: lax.fori_loop(0, length, lambda _, x: step(x), x)


def test_what_a_version_of_jax_names_is_read_in_one_place():
    """A scan's constants are known in its body, its carry is not."""
    (eqn,) = jax.make_jaxpr(lambda v: by_scan(lambda x: x * v, 3)(v))(np.ones(2)).jaxpr.eqns
    assert _jax.carried(eqn).start == _jax.scan_consts(eqn) == 1
