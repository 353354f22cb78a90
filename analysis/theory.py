"""The predictions, as formulas. They are fixed before a run and import nothing of the suite.

n is the depth of the chain, s the number of slots; the loss counts as layer n + 1 (see the backprop study).
"""

from math import comb, isqrt


def vanilla_evaluations(n: int) -> int:
    """Every layer once."""
    return n


def memory_poor_evaluations(n: int) -> int:
    """Every activation from the input: 1 + 2 + ... + n."""
    return n * (n + 1) // 2


def sqrt_segments(n: int) -> int:
    """Segments of the sqrt(n) strategy: sqrt(n), rounded up."""
    return isqrt(n - 1) + 1


def sqrt_evaluations(n: int) -> int:
    """One more forward pass, but for a layer a segment: 2n - sqrt(n) when n is a square."""
    return 2 * n - sqrt_segments(n)


def optimal_evaluations(n: int, s: int) -> int:
    """t(n + 1, s) with t(l, s) = r l - C(s + r, s + 1), r least with C(s + r, s) >= l.

    Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000).
    """
    length, repeats = n + 1, 0
    while comb(s + repeats, s) < length:
        repeats += 1
    return repeats * length - comb(s + repeats, s + 1)


def time_ratio(evaluations: float, n: int, b: float) -> float:
    """Time against a backprop that evaluates every layer once: (evaluations / n + b) / (1 + b).

    b is the time of the backward pass over that of the forward pass. The law has no parameter to fit.
    """
    return (evaluations / n + b) / (1 + b)


# Forward against reverse mode: flops of pulling one cotangent through a step over those of pushing one tangent,
# a flop an element and operation, as JAX writes the derivatives down.
CROSSOVER = {
    "dense": 1.0,  # a product with W against one with its transpose
    "elementwise": 1.0,  # h cos h: t cos h - h (t sin h) against c cos h - (c h) sin h, five each
    # Tangent: one subtraction, the product rule's three, minus t, times the step, plus t: 7. Cotangent: times the step,
    # the product rule's two, a minus for each of two subtractions, and sums where a value is used more than once: each
    # of three rolls takes two slices of the state (3), and the state is used five times (4). 12.
    "ode": 12 / 7,
}
CROSSOVER_MARGIN = {"count": 0.1, "clock": 0.5}  # to either side, as a share: the statement's own width is [1, 2]
CHEAP_GRADIENT = 5.0  # Baur and Strassen 1983; Griewank and Walther 2008, section 3.3: at most 5 for the gradient

# Hessians: exponents in the number of inputs of flops over those of f, and of the memory held at once.
HESSIAN_EXPONENT = {"fwd_rev": 1, "rev_rev": 1, "rev_fwd": 2, "fwd_fwd": 2}


def rounding_error(n: int, decades: int, eps: float) -> float:
    """cond eps sqrt(n): what rounding leaves of a computation with X^-1, errors adding up as a random walk.

    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, sections 2.8 and 14.1.
    """
    return float(10.0 ** min(decades, 300) * eps * n**0.5)  # beyond, X is singular in any precision


# A dense linear solve with one right-hand side: flops of the backward over those of the forward pass.
SOLVE_RATIO_TIMES_N = 4.5  # of the kept factors, as n grows: 3 n^2 over 2/3 n^3


def kept_factors_ratio(n: int) -> float:
    """Two triangular solves and an outer product over a factorisation and two triangular solves."""
    return 3 * n**2 / (2 / 3 * n**3 + 2 * n**2)


# Other ways to the same backward pass (leading terms): factorising again 2/3 n^3 over 2/3 n^3; through the inverse
# 2 n^3 for A^-T G and 2 n^3 for its product with A^-T, over 2/3 n^3 + 2 n^3 for the inverse.
SOLVE_RATIOS = {"factorised_again": 1.0, "cholesky_again": 1.0, "jax_inverse": 1.5}
ABOUT = 0.25  # "about as much": within this share
NEGLIGIBLE = 0.1  # a ratio that is said to vanish is below this

# An SVD of a square matrix, in n^3 flops. JAX calls LAPACK's gesdd, divide and conquer (Gu and Eisenstat, SIAM J.
# Matrix Anal. Appl. 16, 1995): 8/3 to bidiagonal form, at most 8/3 for the vectors of that, 2 to bring each of both
# back. What deflates costs less. (Golub and Reinsch's algorithm takes 22.) The lecture's rule takes 2, JAX's 4, for it
# multiplies by a dense diagonal matrix.
SVD_FORWARD = {"thin": 8 / 3 + 8 / 3 + 4, "values": 8 / 3}
SVD_STEP = (SVD_FORWARD["thin"] + 2) / SVD_FORWARD["values"]  # forward and backward, which needs the vectors


def probe_variance(kind: str, trace: float, square: float, diagonal: float, d: int) -> float:
    """The variance of v^T X v for a symmetric X of order d: ``square`` its squared Frobenius norm, ``diagonal`` the sum
    of x_ii^2.

    Avron and Toledo, J. ACM 58 (2011), lemmas 1 and 9; on the sphere by E[v_i^2 v_j^2] = d / (d + 2).
    """
    if kind == "rademacher":
        return 2 * (square - diagonal)
    return 2 * square if kind == "gaussian" else 2 * d / (d + 2) * (square - trace**2 / d)


# glibc maps a request above anew where its heap has no room, and unmaps it when it is freed: mallopt(3), the largest
# threshold; in bytes.
MAPPED = 32 * 2**20
KEEPS_PAGES = "cpu-nommap"  # the target whose allocator never does


def segments_memory(n: int, rho: float, k: float) -> float:
    """Carries that k segments of n blocks hold at most: one a segment, and rho a block of the one that is run again."""
    return k + rho * n / k


def best_segments(n: int, rho: float) -> float:
    """The number of segments that holds the least: sqrt(rho n).

    Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv:1604.06174, section 4.1, with
    rho = 1.
    """
    return float((rho * n) ** 0.5)
