"""The trace of a matrix that is only known by its products with vectors.

Each estimator takes ``matmat``, which multiplies the matrix by the columns of its argument, and ``probes``, random
columns v with E[v v^T] = I. What it may cost is counted in columns multiplied. All are unbiased for a symmetric matrix.
"""

from collections.abc import Callable

import jax.numpy as jnp

from adcost._shapes import Array, Float

Columns = Float[Array, "d k"]
Matmat = Callable[[Columns], Columns]
Scalar = Float[Array, ""]


def quadratic_forms(matmat: Matmat, probes: Columns) -> Float[Array, " k"]:
    """v^T X v of each probe: one estimate of the trace each.

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
    return jnp.sum(probes * matmat(probes), axis=0)


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

    References
    ----------
    Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059-1076.
    """
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

    References
    ----------
    Meyer, Musco, Musco and Woodruff, "Hutch++: optimal stochastic trace estimation", SOSA 2021, algorithm 1.
    """
    third = probes.shape[1] // 3
    sketch, rest = probes[:, :third], probes[:, third : 2 * third]
    q = jnp.linalg.qr(matmat(sketch))[0]
    rest = rest - q @ (q.T @ rest)
    return jnp.sum(q * matmat(q)) + hutchinson(matmat, rest)


def xtrace(matmat: Matmat, probes: Columns) -> Scalar:
    """XTrace: Hutch++ in which every probe serves once for the rest and otherwise for the sketch.

    With all probes but the i-th the range is that of Q less one direction s_i, which R tells: so all sketches that
    leave one probe out come from one factorisation.

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

    References
    ----------
    Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J. Matrix
    Anal. Appl. 45 (2024), section 2.
    """
    half = probes.shape[1] // 2
    probes = probes[:, :half]
    image = matmat(probes)
    q, r = jnp.linalg.qr(image)
    image_q = matmat(q)
    h = q.T @ image_q
    s = jnp.linalg.inv(r).T
    s = s / jnp.linalg.norm(s, axis=0)
    inside = q.T @ probes
    inside = inside - s * jnp.sum(s * inside, axis=0)  # in the range without s_i
    outside, image_outside = probes - q @ inside, image - image_q @ inside
    on_range = jnp.trace(h) - jnp.sum(s * (h @ s), axis=0)
    return jnp.mean(on_range + jnp.sum(outside * image_outside, axis=0))
