"""Matrices whose truth is known: of a given condition, and inverses of more digits than the case has."""

import numpy as np


def with_condition(n: int, decades: int, rng: np.random.Generator, definite: bool = False) -> np.ndarray:
    """An n x n matrix with singular values spread evenly on a log scale from 1 down to 10^-decades.

    A definite one is symmetric with these eigenvalues.
    """
    left, right = rng.normal(size=(2, n, n))
    q = np.linalg.qr(left)[0]
    return q * np.logspace(0, -decades, n) @ (q.T if definite else np.linalg.qr(right)[0])


def inverse(x: np.ndarray) -> np.ndarray:
    """The inverse of a matrix in float32 to float64, of one in float64 to what extended precision gives.

    Newton's iteration squares the error of the inverse (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.
    2002, section 14.5).
    """
    found = np.linalg.inv(x.astype(float))
    if x.dtype == np.float32:
        return found
    x, found = x.astype(np.longdouble), found.astype(np.longdouble)
    for _ in range(3):
        found = found + found @ (np.eye(len(x)) - x @ found)
    return found
