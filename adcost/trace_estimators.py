"""The trace of a matrix that is only known by its products with vectors.

Each estimator takes ``matmat``, which multiplies the matrix by the columns of its argument, and ``probes``, random
columns v with E[v v^H] = I. What it may cost is counted in columns multiplied. All are unbiased for a Hermitian matrix,
real or complex; of a complex one they are complex, with an imaginary part of rounding's size. The derivative of an
estimate takes its sketch for constant, and estimates the derivative of the trace.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from adcost._shapes import Array, Inexact

Columns = Inexact[Array, "d k"]
Matmat = Callable[[Columns], Columns]
Scalar = Inexact[Array, ""]


def _require(probes: Columns, least: int, name: str) -> None:
    if probes.shape[1] < least:
        raise ValueError(f"{name} needs at least {least} probes, got {probes.shape[1]}")


def quadratic_forms(matmat: Matmat, probes: Columns) -> Inexact[Array, " k"]:
    """v^H X v of each probe: one estimate of the trace each.

    Parameters
    ----------
    matmat
        Columns, d x k, to the matrix times them.
    probes
        Random columns, d x k.

    Returns
    -------
    forms
        An estimate for each probe, k of them; k products.

    References
    ----------
    Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059-1076.
    """
    return jnp.sum(probes.conj() * matmat(probes), axis=0)


def hutchinson(matmat: Matmat, probes: Columns) -> Scalar:
    """Hutchinson's estimate: the mean of the quadratic forms. Its error falls as k^-1/2.

    Parameters
    ----------
    matmat
        Columns, d x k, to the matrix times them.
    probes
        Random columns, d x k.

    Returns
    -------
    trace
        The estimate; k products.

    Raises
    ------
    ValueError
        Without a probe.

    References
    ----------
    Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059-1076.
    """
    _require(probes, 1, "hutchinson")
    return jnp.mean(quadratic_forms(matmat, probes))


def hutchpp(matmat: Matmat, probes: Columns) -> Scalar:
    """Hutch++: exact on the range of a sketch, Hutchinson on the rest. Its error falls as 1/k.

    Parameters
    ----------
    matmat
        Columns, d x k, to the matrix times them.
    probes
        Random columns, d x k; a third of them makes the sketch, a third the rest.

    Returns
    -------
    trace
        The estimate; k products.

    Raises
    ------
    ValueError
        With fewer than three probes.

    References
    ----------
    Meyer, Musco, Musco and Woodruff, "Hutch++: optimal stochastic trace estimation", SOSA 2021, algorithm 1.
    """
    _require(probes, 3, "hutchpp")
    third = probes.shape[1] // 3
    sketch, rest = probes[:, :third], probes[:, third : 2 * third]
    q = jnp.linalg.qr(lax.stop_gradient(matmat(sketch)))[0]
    rest = rest - q @ (q.conj().T @ rest)
    return jnp.sum(q.conj() * matmat(q)) + hutchinson(matmat, rest)


def xtrace(matmat: Matmat, probes: Columns) -> Scalar:
    """XTrace: Hutch++ in which every probe serves once for the rest and otherwise for the sketch.

    With all probes but the i-th the range is that of Q less one direction s_i, which R tells: so all sketches that
    leave one probe out come from one factorisation. Where the image has lower rank than there are probes, the others
    span it without the i-th, and nothing is taken away: the estimate is exact.

    Parameters
    ----------
    matmat
        Columns, d x k, to the matrix times them.
    probes
        Random columns, d x k; half of them are used.

    Returns
    -------
    trace
        The estimate; k products.

    Raises
    ------
    ValueError
        With fewer than two probes.

    References
    ----------
    Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J. Matrix
    Anal. Appl. 45 (2024), section 2.
    """
    _require(probes, 2, "xtrace")
    half = probes.shape[1] // 2
    probes = probes[:, :half]
    image = matmat(probes)
    q, r = jnp.linalg.qr(lax.stop_gradient(image))
    u, size, vh = jnp.linalg.svd(r)  # image = q u diag(size) vh, and below that the rows of r's null space
    eps = jnp.finfo(size.dtype).eps
    kept = size > eps * max(image.shape) * jnp.max(size)
    # Without column i the rank falls where the null space does not reach it, by the direction that r's inverse gives.
    in_null_space = 1 - jnp.pad(kept, (0, half - kept.size)).astype(size.dtype)
    needed = jnp.linalg.norm(vh * in_null_space[:, None], axis=0) < 16 * eps
    basis, vh = (q @ u[:, : kept.size]) * kept, vh[: kept.size] * kept[:, None]
    image_basis = matmat(basis)
    h = basis.conj().T @ image_basis
    s = vh * jnp.where(kept, 1 / jnp.where(kept, size, 1), 0)[:, None] * jnp.max(size)
    norms = jnp.linalg.norm(s, axis=0)
    s = jnp.where(needed, s / jnp.where(norms > 0, norms, 1), 0)
    inside = basis.conj().T @ probes
    inside = inside - s * jnp.sum(s.conj() * inside, axis=0)  # in the range without s_i
    outside, image_outside = probes - basis @ inside, image - image_basis @ inside
    on_range = jnp.trace(h) - jnp.sum(s.conj() * (h @ s), axis=0)
    return jnp.mean(on_range + jnp.sum(outside.conj() * image_outside, axis=0))
