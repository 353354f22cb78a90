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
