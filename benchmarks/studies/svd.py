"""R(W) = tr(Sigma): what does the backward pass of an SVD cost, against which forward pass, and where does it fail?

The lecture's Task 3: for a loss of the singular values alone, dL/dW = U diag(dL/ds) V^T. With U and V at hand that is
one product of matrices, 2 n^3 operations; JAX multiplies by a dense diagonal matrix, 4 n^3. A thin SVD takes
14 m n^2 + 8 n^3 (Golub and Van Loan, Matrix Computations, 4th ed. 2013, figure 8.6.1, Golub-Reinsch), one of values
only 4 m n^2 - 4/3 n^3: whoever differentiates the latter runs the former. So there are two forward passes to compare
with, ``values`` and ``thin``, and both stand in the report.

Losses: the nuclear norm, the spectral norm, a smooth function of the values; and ``vectors``, which depends on U and V
and is blind to their signs. Its gradient is divided by the gaps between singular values. Matrices whose truth is exact
show what becomes of that: a gap of 2^-k between two singular values, two equal ones, two that are 0.
"""

from collections.abc import Iterator
from functools import partial
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import hadamard

from adcost.safe_svd import safe_nuclear_norm, safe_svd
from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from benchmarks.workloads import passes
from benchmarks.workloads.passes import Make, by_jax, by_rule

ANCHORS = (128, 256, 768, 1024)  # orders of square matrices at which both passes in one program are asked for
LOSSES_AT = 128  # the order at which all losses are asked for
EXACT = 16  # the order of the matrices whose truth is exact

Matrix = Float[Array, "m n"]
Values = Float[Array, " k"]
Scalar = Float[Array, ""]


# Losses of the singular values, and one of the vectors.


def nuclear(s: Values) -> Scalar:
    """The lecture's R(W) = tr(Sigma)."""
    return jnp.sum(s)


def spectral(s: Values) -> Scalar:
    """The largest singular value."""
    return s[0]


def smooth(s: Values) -> Scalar:
    """Half the logarithm of det(I + W^T W)."""
    return jnp.sum(jnp.log1p(s * s)) / 2


LOSSES = {"nuclear": nuclear, "spectral": spectral, "smooth": smooth}


def of_vectors(c: Matrix, u: Matrix, vt: Matrix) -> Scalar:
    """<C, U diag(h) V^T> with unequal h: blind to the signs of the vectors, not to which belongs to which value."""
    return jnp.sum(c * ((u * weights(len(vt), u.dtype)) @ vt))


def weights(k: int, dtype: Any) -> Values:
    """h: 1 to 2 in even steps."""
    return jnp.linspace(1, 2, k, dtype=dtype)


# Methods: a loss (or C, for the loss of the vectors) to a rule.


def values(loss: Any) -> Make:
    """The singular values alone: a forward pass that is not to be differentiated."""
    return by_jax(partial(jnp.linalg.svd, compute_uv=False))


def thin(loss: Any) -> Make:
    """U, s and V^T: the other forward pass."""
    return by_jax(partial(jnp.linalg.svd, full_matrices=False))


def jax_values(loss: Any) -> Make:
    """What JAX makes of a loss of the singular values alone."""
    return by_jax(lambda w: loss(jnp.linalg.svd(w, compute_uv=False)))


def jax_thin(loss: Any) -> Make:
    """What JAX makes of a loss of the thin SVD."""
    if not callable(loss):
        return by_jax(lambda w: of_vectors(loss, *_vectors(jnp.linalg.svd(w, full_matrices=False))))
    return by_jax(lambda w: loss(jnp.linalg.svd(w, full_matrices=False)[1]))


def lecture(loss: Any) -> Make:
    """The lecture's rule: keep U and V, return U diag(g) V^T."""

    def forward(w: Matrix) -> tuple[Scalar, Any]:
        u, s, vt = jnp.linalg.svd(w, full_matrices=False)
        value, g = jax.value_and_grad(loss)(s)
        return value, (u * g, vt)

    def backward(residuals: Any, cotangent: Scalar) -> tuple[Matrix]:
        scaled, vt = residuals
        return (cotangent * (scaled @ vt),)

    return by_rule(forward, backward)


def safe(loss: Any) -> Make:
    """``safe_svd``, and ``safe_nuclear_norm`` for the lecture's loss."""
    if not callable(loss):
        return by_jax(lambda w: of_vectors(loss, *_vectors(safe_svd(w))))
    return by_jax(safe_nuclear_norm)


def _vectors(factors: Any) -> tuple[Matrix, Matrix]:
    return factors[0], factors[2]


def _spread(case: Case) -> bool:
    return case.word("spectrum") == "spread"


def _asked(case: Case) -> bool:
    """Both passes in one program where the truth is exact, and at the anchors for the lecture's loss."""
    if not _spread(case):  # a float32 would round the gap away
        return case.dtype == "float64" or case.word("spectrum") != "pair"
    anchor = case["rows"] == case["cols"] in ANCHORS
    return case.dtype == "float32" and (case.word("part") != "both" or anchor)


def _of_values(case: Case) -> bool:
    return _asked(case) and case.word("loss") != "vectors"


def _safe(case: Case) -> bool:
    """Beside the plain rule: for the vectors at one order, for the nuclear norm where the truth is exact."""
    return _asked(case) and (case.word("loss") == "vectors" or not _spread(case))


def _yardstick(case: Case) -> bool:
    return _asked(case) and case.word("part") == "forward" and case.word("loss") == "nuclear"


METHODS = {
    "values": Method(values, where=_yardstick, differentiates=False),
    "thin": Method(thin, where=_yardstick, differentiates=False),
    "jax_values": Method(jax_values, label="JAX's own", where=_of_values),
    "jax_thin": Method(jax_thin, where=_asked),
    "lecture": Method(lecture, label="the lecture's U diag(dL/ds) V^T", where=_of_values),
    "safe": Method(safe, where=_safe),
}


def program(case: Case) -> Program:
    """The case's pass of its loss of the SVD of W; the cotangent of the loss is 1."""
    method = METHODS[case.method]
    w, c = inputs(case)
    make = method.build(LOSSES.get(case.word("loss"), c))
    if not method.differentiates:
        return Program(make(w).function, lambda: (w,))
    return passes.program(make, case.word("part"), (w,), np.ones((), case.dtype))


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """W and C."""
    u, s, vt, c = factors(passes.with_part(case, ""))
    return ((u * s) @ vt).astype(case.dtype), c.astype(case.dtype)


@once_a_size
def factors(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """U, s and V^T of W, in float64, and C.

    Singular values are spread evenly from 1 to 2, in random bases. Where the truth is exact they are whole numbers, but
    for two, 1 and 1 + 2^-halvings, or 1 and 1, or 0 and 0; the bases are columns of Hadamard's matrix over 4, so that
    every entry of W is exact too.
    """
    m, n = case["rows"], case["cols"]
    k = min(m, n)
    rng = np.random.default_rng(0)
    c = rng.normal(size=(m, n)) / np.sqrt(m * n)
    if _spread(case):
        u, v = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (m, n))
        return u, np.linspace(2, 1, k), v.T, c
    basis = hadamard(EXACT) / 4.0
    signs, order = rng.choice([-1.0, 1.0], size=EXACT), rng.permutation(EXACT)
    pair = {"pair": (1 + 2.0 ** -case["halvings"], 1.0), "equal": (1.0, 1.0), "deficient": (0.0, 0.0)}
    s = np.array([*range(EXACT - 1, 1, -1), *pair[case.word("spectrum")]])
    return basis, s, (signs[:, None] * basis[order]).T, c


def reference(case: Case) -> Any:
    """U diag(g) V^T, or the gradient through the vectors, from the factors of W; of a forward pass the loss.

    At equal singular values the vectors are not determined, and have no gradient: the ones that stand for it let an
    infinity or a NaN of the result show. Where values are 0 the nuclear norm has the subgradient of least norm.
    """
    u, s, vt, c = factors(passes.with_part(case, ""))
    h, w = np.linspace(1, 2, s.size), case.word("loss")
    if case.word("part") == "forward":
        by_name = {"nuclear": s.sum(), "spectral": s[0], "smooth": np.log1p(s * s).sum() / 2}
        return by_name[w] if w in by_name else np.sum(c * ((u * h) @ vt))
    if w == "vectors":
        return _by_vectors(u, s, vt, c, h) if case.word("spectrum") in ("spread", "pair") else np.ones(c.shape)
    g = {"nuclear": (s > 0).astype(float), "spectral": np.eye(s.size)[0], "smooth": s / (1 + s * s)}[w]
    return (u * g) @ vt


def _by_vectors(u: np.ndarray, s: np.ndarray, vt: np.ndarray, c: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Townsend, "Differentiating the singular value decomposition" (2016), section 1, for <C, U diag(h) V^T>."""
    by_u, by_v = (c @ vt.T) * h, (c.T @ u) * h
    gaps = (s[None, :] - s[:, None]) * (s[None, :] + s[:, None])
    f = np.divide(1, gaps, out=np.zeros_like(gaps), where=gaps != 0)
    left, right = u.T @ by_u, vt @ by_v
    middle = (f * (left - left.T)) * s[None, :] + s[:, None] * (f * (right - right.T))
    outside = (by_u - u @ left) / s @ vt + (u / s) @ (by_v - vt.T @ right).T
    return u @ middle @ vt + outside


def tolerance(case: Case) -> float:
    """A hundred times what rounding leaves at the narrowest gap; where the truth is exact the error is the finding."""
    if not _spread(case):
        return inf
    k = min(case["rows"], case["cols"])
    wide = k if case.word("loss") == "vectors" else 1
    return 100 * float(np.finfo(case.dtype).eps) * k**0.5 * wide


def sizes(orders: tuple[int, ...], oblong: tuple[tuple[int, int], ...], halvings: tuple[int, ...]) -> list[Params]:
    """The lecture's loss over square, tall and wide matrices; the other losses at one order; the gaps."""

    def size(part: str, loss: str, rows: int, cols: int, spectrum: str = "spread", gap: int = 0) -> Params:
        return {"part": part, "loss": loss, "spectrum": spectrum, "rows": rows, "cols": cols, "halvings": gap}

    def all_sizes() -> Iterator[Params]:
        for rows, cols in [*((n, n) for n in orders), *oblong]:
            yield from (size(part, "nuclear", rows, cols) for part in passes.PARTS)
        for loss in ("spectral", "smooth", "vectors"):
            yield from (size(part, loss, LOSSES_AT, LOSSES_AT) for part in ("forward", "backward"))
        for loss in ("nuclear", "vectors"):
            swept = halvings if loss == "vectors" else halvings[1::2]  # through the values nothing happens
            yield from (size("both", loss, EXACT, EXACT, "pair", gap) for gap in swept)
            yield from (size("both", loss, EXACT, EXACT, spectrum) for spectrum in ("equal", "deficient"))

    return list(all_sizes())


def against(case: Case) -> dict[str, Case]:
    """The forward pass of the same method, and the two forward passes that there are; at gaps no time is asked for."""
    if not _spread(case):
        return {}
    if case.word("part") == "forward":
        return {name: case.with_method(name) for name in ("values", "thin") if name != case.method}
    forward = passes.with_part(case, "forward")
    return {"forward": forward, "values": forward.with_method("values"), "thin": forward.with_method("thin")}


STUDY = Study(
    name="svd",
    question="What does the backward pass of an SVD cost, against which forward pass, and where does it fail?",
    methods=METHODS,
    sizes={
        "quick": sizes(
            (32, 64, 96, 128, 192, 256, 384, 512), ((256, 64), (64, 256)), (1, 6, 12, 18, 24, 30, 36, 42, 48)
        ),
        "full": sizes(
            (32, 64, 96, 128, 192, 256, 384, 512, 768, 1000, 1024),
            ((256, 64), (64, 256), (1024, 256), (256, 1024)),
            (1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48),
        ),
    },
    program=program,
    reference=reference,
    tolerance=tolerance,
    baselines=("jax_values",),
    against=against,
    together=("part", "loss", "spectrum", "rows", "cols", "halvings"),
    in_turn=("loss", "spectrum", "rows", "cols", "halvings"),
    compared={"rows": (256,)},
    dtypes=("float32", "float64"),
)
