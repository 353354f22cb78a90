"""How much work a profile puts into a number."""

from dataclasses import dataclass

TRIES = 2  # runs in which a case is tried: one that fails in both will fail again


@dataclass(frozen=True)
class Effort:
    """How much work a profile puts into a number. Rounds of a process are fixed by its warm-up, before the first."""

    processes: int  # in which a set of programs is timed, spread over the run
    clock_seconds: float  # of rounds of a set in one process, as far as the numbers below allow
    least_rounds: int  # a process
    rounds: int  # a process, at most
    process_runs: int  # peaks of which the highest counts
    limit_seconds: float  # after which a case is given up
    compiles_all: bool  # ask compilers of other devices for every case
    all_lines: bool  # ask for the lines of every case that runs here, not of each method's largest alone
    fits: bool  # seek the largest case that fits a compiler's device
    profile: str = "quick"  # whose clusters a study is measured on


EFFORTS = {
    "quick": Effort(5, 0.2, 2, 6, 2, 60, compiles_all=False, all_lines=False, fits=False),
    "full": Effort(10, 1.5, 3, 12, 3, 600, compiles_all=True, all_lines=True, fits=True, profile="full"),
}
