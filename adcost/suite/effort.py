"""How much work a profile puts into a number."""

from dataclasses import dataclass

LEAST_ROUNDS = 6  # below, no interval of a median reaches 95%
TRIES = 2  # runs in which a case is tried: one that fails in both will fail again


@dataclass(frozen=True)
class Effort:
    """How much work a profile puts into a number."""

    clock_seconds: float  # a group on the clock, beyond the least number of rounds
    least_rounds: int
    rounds: int  # at most
    process_runs: int  # peaks of which the highest counts
    limit_seconds: float  # after which a case is given up
    compiles_all: bool  # ask compilers of other devices for every case
    fits: bool  # seek the largest case that fits a compiler's device


EFFORTS = {
    "quick": Effort(1.5, LEAST_ROUNDS, 40, 2, 60, compiles_all=False, fits=False),
    "full": Effort(20, 2 * LEAST_ROUNDS, 100, 3, 600, compiles_all=True, fits=True),
}
