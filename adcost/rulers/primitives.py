"""What each primitive of JAX costs: floating-point operations and bytes moved, or that it is not known.

One table for every primitive. A flop is an addition, a multiplication, a comparison that a sort or a maximum makes, or
one call of a transcendental function, on floating-point numbers; a complex operation counts as the real ones that it
is made of. Conversions, choices, comparisons that only decide, and all that integers do are no flops. A row says
against what it is held (``tests/adcost/test_primitives.py``): XLA's own count of a program of this one operation, or
the leading term of the textbook's algorithm.

References
----------
Golub and Van Loan, Matrix Computations, 4th ed. 2013: factorisations. Cooley and Tukey, Math. Comput. 19 (1965): FFT.
"""

from collections.abc import Callable
from math import gcd, log2, prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from adcost import _jax

Rule = Callable[[Any], float]


def size(v: Any) -> int:
    """Numbers in a variable; 1 for what has no shape, as a token."""
    return prod(getattr(v.aval, "shape", ()))


def nbytes(v: Any) -> int:
    """Bytes of a variable; 0 for what holds none, as a token. A reference has those of its array."""
    dtype = getattr(v.aval, "dtype", None)
    return 0 if dtype is None else size(v) * dtype.itemsize


def is_inexact(v: Any) -> bool:
    """Is a variable made of floating-point numbers, of however few bits, or of complex ones?"""
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.inexact))


def is_complex(v: Any) -> bool:
    """Is a variable made of complex numbers?"""
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.complexfloating))


# ---------------------------------------------------------------- flops


def none(eqn: Any) -> float:
    """It only moves, converts or chooses."""
    return 0


# Real operations of one complex operation; of a transcendental function, those of its real and imaginary parts.
COMPLEX = {"add": 2, "add_any": 2, "sub": 2, "neg": 2, "mul": 6, "div": 11, "abs": 4, "square": 5, "sign": 6}
OTHER_COMPLEX = 6


def each(eqn: Any) -> float:
    """One operation an element of the result."""
    if not any(is_inexact(v) for v in (*eqn.invars, *eqn.outvars)):
        return 0
    many = COMPLEX.get(eqn.primitive.name, OTHER_COMPLEX) if any(map(is_complex, eqn.invars)) else 1
    return many * sum(size(v) for v in eqn.outvars)


def power(eqn: Any) -> float:
    """One operation an element; a complex power by repeated squaring."""
    products = max(1, abs(_jax.exponent(eqn)).bit_length()) if is_complex(eqn.invars[0]) else 1
    return (6 * products if is_complex(eqn.invars[0]) else 1) * size(eqn.outvars[0]) * is_inexact(eqn.outvars[0])


PRODUCTS = ("reduce_prod", "cumprod", "scatter-mul")


def _inexact(eqn: Any) -> int:
    """What an addition or a product of the first operand's elements counts: of integers nothing, of real numbers 1."""
    if not is_complex(eqn.invars[0]):
        return int(is_inexact(eqn.invars[0]))
    return COMPLEX["mul" if eqn.primitive.name in PRODUCTS else "add"]


def reduction(eqn: Any) -> float:
    """One operation for every element but one of each result."""
    return max(0, size(eqn.invars[0]) - size(eqn.outvars[0])) * _inexact(eqn)


def search(eqn: Any) -> float:
    """A comparison for every element."""
    return size(eqn.invars[0]) * is_inexact(eqn.invars[0])


def cumulative(eqn: Any) -> float:
    """An operation for every element: what one sweep takes."""
    return size(eqn.invars[0]) * _inexact(eqn)


def cumulative_logsumexp(eqn: Any) -> float:
    """A maximum, an exponential and a logarithm, a sum for every element."""
    return 4 * size(eqn.invars[0])


def sort(eqn: Any) -> float:
    """n log2 n comparisons of each row, of its first key; the other operands move with it."""
    if not is_inexact(eqn.invars[0]):
        return 0
    n = eqn.invars[0].aval.shape[_jax.sorted_axis(eqn)]
    return size(eqn.invars[0]) * log2(max(n, 2))


def top_k(eqn: Any) -> float:
    """n log2 k comparisons of each row."""
    return size(eqn.invars[0]) * log2(max(_jax.top(eqn), 2)) * is_inexact(eqn.invars[0])


def windows(eqn: Any) -> float:
    """One operation for every element of a window but one."""
    return max(0, _jax.window_size(eqn) - 1) * size(eqn.outvars[0]) * _inexact(eqn)


def windows_and_gather(eqn: Any) -> float:
    """A comparison for every element of a window but one; what is chosen moves."""
    return max(0, _jax.window_size(eqn) - 1) * size(eqn.outvars[0]) * is_inexact(eqn.invars[1])


def windows_and_scatter(eqn: Any) -> float:
    """For every window its comparisons, and one addition of its source."""
    return _jax.window_size(eqn) * size(eqn.invars[0]) * is_inexact(eqn.invars[0])


def scattered(eqn: Any) -> float:
    """An operation for every element of the updates."""
    return size(eqn.invars[2]) * _inexact(eqn)


def dot(eqn: Any) -> float:
    """2 k operations an element of the result, four times as many of complex numbers."""
    return 2 * size(eqn.outvars[0]) * _jax.contracted_size(eqn) * _products(eqn)


def ragged_dot(eqn: Any) -> float:
    """A product of each row with the matrix of its group: 2 m k n, whatever the groups' sizes."""
    return 2 * size(eqn.invars[0]) * _jax.ragged_columns(eqn) * _products(eqn)


def _products(eqn: Any) -> int:
    """What a product and a sum count: as such for real numbers, 4 for complex ones, nothing for integers."""
    if not is_inexact(eqn.outvars[0]):
        return 0
    return 4 if is_complex(eqn.outvars[0]) else 1


def convolution(eqn: Any) -> float:
    """Two operations for each pair of an input and a weight that meet: padding and the holes of dilation are none."""
    conv = _jax.convolution(eqn)
    meetings = 1
    for n, k, out, stride, (before, _), hole, spread in conv.axes:
        # Weight j meets the input under output o where o stride + first is a multiple of the holes, inside the input.
        first = np.arange(k, dtype=np.int64) * spread - before
        low = np.maximum(-(first // stride), 0)
        high = np.minimum(((n - 1) * hole - first) // stride, out - 1)
        common = gcd(stride, hole)
        period = hole // common
        begin = -(first // common) * (pow(stride // common, -1, period) if period > 1 else 0) % period
        met = np.maximum((high - begin) // period - (low - 1 - begin) // period, 0)
        meetings *= int(np.sum(np.where(first % common == 0, met, 0)))
    return 2 * meetings * conv.batch * conv.features_out * conv.features_in * _products(eqn)


def fft(eqn: Any) -> float:
    """5 N log2 N, half of it where one side is real (Cooley and Tukey)."""
    complex_sides = is_complex(eqn.invars[0]) + is_complex(eqn.outvars[0])
    n = prod(_jax.fft_lengths(eqn))
    larger = max(size(eqn.outvars[0]), size(eqn.invars[0]))
    return 2.5 * complex_sides * larger * log2(max(n, 2))


def _of_matrix(flops: Callable[[Any, int, int], float], complex_factor: int = 4) -> Rule:
    """A rule by the rows and columns of the first operand's matrices."""

    def rule(eqn: Any) -> float:
        *batch, m, n = eqn.invars[0].aval.shape
        return prod(batch) * flops(eqn, m, n) * (complex_factor if is_complex(eqn.invars[0]) else 1)

    return rule


def svd_flops(m: int, n: int, vectors: bool, full: bool = False) -> float:
    """Of an m x n matrix, m not less than n, by LAPACK's gesdd: the values, the thin SVD, or that with all of U.

    To bidiagonal form, GVL section 5.4.8; the vectors of that by divide and conquer, 8/3 n^3 at most, less where it
    deflates (Gu and Eisenstat, SIAM J. Matrix Anal. Appl. 16, 1995); both sides brought back by their reflectors.
    """
    bidiagonal = 4 * m * n**2 - 4 / 3 * n**3
    if not vectors:
        return bidiagonal
    columns = m if full else n
    left = 2 * n * columns * (2 * m - n)  # n reflectors of length m to 1, to so many columns
    return bidiagonal + 8 / 3 * n**3 + left + 2 * n**3


def _svd(eqn: Any, m: int, n: int) -> float:
    return svd_flops(max(m, n), min(m, n), *_jax.wanted_vectors(eqn))


def _lu(eqn: Any, m: int, n: int) -> float:
    k = min(m, n)
    return 2 * m * n * k - (m + n) * k**2 + 2 / 3 * k**3  # section 3.2; 2/3 n^3 of a square matrix


def _reflectors(eqn: Any, m: int, n: int) -> float:
    return 2 * min(m, n) ** 2 * (max(m, n) - min(m, n) / 3)  # section 5.2.2: R


def _product_of_reflectors(eqn: Any, m: int, n: int) -> float:
    k = eqn.invars[1].aval.shape[-1]
    return 4 * m * n * k - 2 * (m + n) * k**2 + 4 / 3 * k**3  # section 5.1.6: Q, accumulated backwards


def _qr(eqn: Any, m: int, n: int) -> float:
    k, columns = min(m, n), eqn.outvars[0].aval.shape[-1]
    return _reflectors(eqn, m, n) + 4 * m * columns * k - 2 * (m + columns) * k**2 + 4 / 3 * k**3


def _eig(eqn: Any, m: int, n: int) -> float:
    return (25 if len(eqn.outvars) > 1 else 10) * n**3  # section 7.5.6: with vectors, or the values alone


def multiplied_by_reflectors(eqn: Any) -> float:
    """Q times a matrix, by its reflectors: 4 m n k - 2 n k^2 (Golub and Van Loan, section 5.1)."""
    *batch, m, n = eqn.outvars[0].aval.shape
    k = eqn.invars[1].aval.shape[-1]
    return prod(batch) * (4 * m * n * k - 2 * n * k**2) * (4 if is_complex(eqn.outvars[0]) else 1)


def triangular_solve(eqn: Any) -> float:
    """n^2 for each right-hand side (Golub and Van Loan, section 3.1)."""
    order = eqn.invars[0].aval.shape[-1]
    return order * size(eqn.outvars[0]) * _products(eqn)


def tridiagonal_solve(eqn: Any) -> float:
    """8 n for each right-hand side (Golub and Van Loan, section 4.3.6)."""
    return 8 * size(eqn.outvars[0]) * _products(eqn)


def symmetric_product(eqn: Any) -> float:
    """A product with its own transpose."""
    return 2 * size(eqn.outvars[0]) * eqn.invars[0].aval.shape[-1] * _products(eqn)


def sparse_product(eqn: Any) -> float:
    """Two operations for each stored entry and each column of the dense side."""
    data, dense = eqn.invars[0], eqn.invars[-1]
    columns = prod(n for axis, n in enumerate(dense.aval.shape) if axis not in _jax.dense_axes_summed(eqn))
    return 2 * size(data) * columns * _products(eqn)


# ---------------------------------------------------------------- bytes moved


def all_of_it(eqn: Any) -> float:
    """Every operand is read, every result written."""
    return sum(map(nbytes, (*eqn.invars, *eqn.outvars)))


def chosen(eqn: Any) -> float:
    """Of the operand only what the result holds; the indices are read."""
    return 2 * sum(map(nbytes, eqn.outvars)) + sum(map(nbytes, eqn.invars[1:]))


def replaced(eqn: Any) -> float:
    """In place: what is written is read and written, and the indices read."""
    update = 1 if eqn.primitive.name == "dynamic_update_slice" else 2
    return 2 * nbytes(eqn.invars[update]) + sum(nbytes(v) for v in eqn.invars[1:])


def touched(eqn: Any) -> float:
    """Of a reference only what is read or written."""
    return 2 * nbytes(eqn.outvars[0]) if eqn.outvars else 2 * nbytes(eqn.invars[1])


def written(eqn: Any) -> float:
    """The result is written; a scalar operand costs nothing."""
    return sum(map(nbytes, eqn.outvars))


def nothing(eqn: Any) -> float:
    """A view, or bookkeeping."""
    return 0


class Cost(NamedTuple):
    """A row of the table: flops (None: not known), bytes moved, and what the flops are held against."""

    flops: Rule | None
    moved: Rule
    held: str


XLA, BOOK, OWN = "XLA's count", "textbook, leading term", "by definition"


def rows(names: str, flops: Rule | None, moved: Rule = all_of_it, held: str = XLA) -> dict[str, Cost]:
    """The same row for several primitives."""
    return {name: Cost(flops, moved, held) for name in names.split()}


TABLE: dict[str, Cost] = {
    # elementwise
    **rows(
        """
        add sub mul div max min neg abs sign pow sqrt rsqrt cbrt exp exp2 expm1 log log1p log2 sin cos tan tanh
        logistic add_any rem floor ceil round erf atan2 clamp square reciprocal one_minus_square
        """,
        each,
    ),
    **rows("integer_pow polynomial", power),
    # JAX expands these into polynomials and other elementary operations before XLA counts: one call is one operation
    **rows(
        "sinh cosh asin acos atan asinh acosh atanh erf_inv erfc lgamma digamma bessel_i0e bessel_i1e", each, held=OWN
    ),
    # series and continued fractions, whose length the numbers decide; a sampler that rejects
    **rows(
        "igamma igammac igamma_grad_a regularized_incomplete_beta polygamma zeta random_gamma random_gamma_grad",
        None,
        held="unknown",
    ),
    # choices, comparisons, conversions, integers and their bits
    **rows(
        """
        select_n eq ne lt le gt ge eq_to lt_to le_to is_finite nextafter and or xor not shift_left shift_right_logical
        shift_right_arithmetic population_count clz mulhi multiple_of convert_element_type reduce_precision real imag
        complex conj bitcast_convert_type to_edtype from_edtype random_bits random_seed random_split random_fold_in
        random_wrap random_unwrap random_clone threefry2x32 threefry4x32 philox2x32 philox4x32 rng_bit_generator
        rng_uniform iota_2x32_shape
        """,
        none,
        held=OWN,
    ),
    # moves
    **rows(
        """
        transpose rev pad concatenate copy tile split stack unstack device_put sharding_constraint layout_constraint
        reshard mesh_cast all_gather all_gather_invariant all_gather_reduced all_to_all ragged_all_to_all ppermute
        pbroadcast broadcast_to lu_pivots_to_permutation relayout
        """,
        none,
        held=OWN,
    ),
    **rows("broadcast_in_dim iota empty empty2 create_token zeros_like zeros_alike create_linear", none, written, OWN),
    **rows("gather dynamic_slice slice", none, chosen, OWN),
    **rows("dynamic_update_slice", none, replaced, OWN),
    **rows("get swap masked_load masked_swap", none, touched, OWN),
    **rows(
        """
        reshape squeeze expand_dims stop_gradient name CheckpointName optimization_barrier after_all axis_index
        pvary preduced pin unpin copy_p debug_callback debug_print inspect_sharding dce_sink tie num_programs
        program_id new_ref empty_ref free_ref freeze delay check dim_as_value dimension_size shape_assertion
        platform_index get_global precv psend semaphore_read semaphore_signal semaphore_wait unreachable
        vary_unreduced_cast reduced_vary_cast vary_unreduced_cast_p reduced_vary_cast_p
        with_memory_space_constraint xla_metadata_value log_read log_extend new_log new_box box_get box_set
        accum_grad_in_ref
        """,
        none,
        nothing,
        held=OWN,
    ),
    # reductions, windows, orders
    **rows("reduce_sum reduce_max reduce_min reduce_prod", reduction),
    **rows("reduce_and reduce_or reduce_xor", none, held=OWN),
    **rows("argmax argmin", search, held=OWN),
    **rows("psum pmax pmin psum_invariant unreduced_psum unreduced_pmax unreduced_pmin", cumulative, held=OWN),
    **rows("reduce_scatter unreduced_reduce_scatter", search, held=OWN),
    **rows("cumsum cumprod cummax cummin", cumulative, held=OWN),
    **rows("cumlogsumexp", cumulative_logsumexp, held=OWN),
    **rows("reduce_window_sum reduce_window_max reduce_window_min", windows),
    **rows("select_and_scatter_add", windows_and_scatter, held=OWN),
    **rows("select_and_gather_add", windows_and_gather, held=OWN),
    **rows("sort", sort, held=BOOK),
    **rows("top_k approx_top_k", top_k, held=BOOK),
    **rows("scatter-add scatter-sub scatter-mul scatter-max scatter-min", scattered, replaced),
    **rows("addupdate", lambda eqn: size(eqn.invars[1]) * is_inexact(eqn.invars[1]), touched, OWN),
    # products
    **rows("dot_general", dot),
    **rows("ragged_dot_general", ragged_dot, held=OWN),
    **rows("conv_general_dilated", convolution),
    **rows("symmetric_product", symmetric_product, held=BOOK),
    **rows(
        """
        bcoo_dot_general bcsr_dot_general coo_matvec coo_matmat coo_spmv coo_spmm csr_matvec csr_matmat csr_spmv
        csr_spmm
        """,
        sparse_product,
        held=OWN,
    ),
    **rows(
        """
        bcoo_extract bcoo_fromdense bcoo_todense bcoo_transpose bcsr_extract bcsr_fromdense bcsr_todense coo_fromdense
        coo_todense csr_fromdense csr_todense todense
        """,
        none,
        held=OWN,
    ),
    **rows("fft", fft, held=BOOK),
    # factorisations and solves
    **rows("cholesky", _of_matrix(lambda eqn, m, n: n**3 / 3), held=BOOK),
    **rows("cholesky_update", _of_matrix(lambda eqn, m, n: 4 * n**2), held=BOOK),
    **rows("lu", _of_matrix(_lu), held=BOOK),
    **rows("qr", _of_matrix(_qr), held=BOOK),
    **rows("geqrf geqp3", _of_matrix(_reflectors), held=BOOK),
    **rows("householder_product", _of_matrix(_product_of_reflectors), held=BOOK),
    **rows("ormqr", multiplied_by_reflectors, held=BOOK),
    **rows("eigh", _of_matrix(lambda eqn, m, n: 9 * n**3), held=BOOK),
    **rows("eig", _of_matrix(_eig), held=BOOK),
    **rows("schur", _of_matrix(lambda eqn, m, n: 25 * n**3), held=BOOK),
    **rows("hessenberg", _of_matrix(lambda eqn, m, n: 10 / 3 * n**3), held=BOOK),
    **rows("tridiagonal", _of_matrix(lambda eqn, m, n: 4 / 3 * n**3), held=BOOK),
    **rows("svd", _of_matrix(_svd), held=BOOK),
    **rows("triangular_solve", triangular_solve, held=BOOK),
    **rows("tridiagonal_solve", tridiagonal_solve, held=BOOK),
    # what runs elsewhere, or in a kernel that says nothing of its cost
    **rows(
        """
        pure_callback io_callback infeed outfeed xla_pmap ffi_call call_exported custom_lin spsolve
        bcoo_spdot_general bcoo_dot_general_sampled bcoo_sort_indices bcoo_sum_duplicates cudnn_fusion scaled_dot
        scaled_matmul scaled_matmul_wrapper dot_product_attention_fwd dot_product_attention_fwd_wrapper
        dot_product_attention_bwd dot_product_attention_bwd_wrapper dot_product_attention_fp8_fwd
        dot_product_attention_fp8_fwd_wrapper
        dot_product_attention_fp8_bwd dot_product_attention_fp8_bwd_wrapper select_and_scatter mpmd_map
        all_gather_start all_gather_done all_gather_reduced_start all_to_all_start all_to_all_done pbroadcast_start
        pbroadcast_done pbroadcast_dynamic ppermute_start ppermute_done psum_start psum_done psum_invariant_start
        reduce_scatter_start reduce_scatter_done unreduced_psum_start unreduced_reduce_scatter_start
        """,
        None,
        held="unknown",
    ),
}

# How often the body of those runs that hold one for their elements; and what they move.
BY_BODY: dict[str, tuple[Rule, Rule]] = {
    "reduce": (lambda eqn: max(0, size(eqn.invars[0]) - size(eqn.outvars[0])), all_of_it),
    "reduce_window": (lambda eqn: max(0, _jax.window_size(eqn) - 1) * size(eqn.outvars[0]), all_of_it),
    "scatter": (lambda eqn: size(eqn.invars[2]), replaced),
}

# What runs the program that it holds, once, in its own place; a new kind of primitive is named by its class.
CALLS = frozenset(
    """
    jit pjit closed_call core_call call core_closed_call eval_jaxpr jaxpr_call remat remat2 checkpoint remat_opt
    RematTraced custom_jvp_call custom_jvp_call_jaxpr custom_vjp_call custom_vjp_call_jaxpr custom_linear_solve
    custom_vmap_call custom_partitioning linear_call run_scoped run_state composite core_map xla_metadata_call
    symbolic_zeros custom_transpose_call
    """.split()
)
# Those whose program runs many times: a scan, a while loop, the dearest of several, once a grid point, once a device.
MANY = frozenset(("scan", "Scan3", "while", "cond", "pallas_call", "shard_map"))


def is_known(name: str) -> bool:
    """Is there a row for a primitive of this name, be it to say that its cost is unknown?"""
    return name in TABLE or name in CALLS or name in MANY or name in BY_BODY
