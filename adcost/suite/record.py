"""What is known of a case on a target."""

from dataclasses import dataclass, replace

from adcost.suite.vocabulary import Case, Missing, Number

Samples = tuple[tuple[float, ...], ...]
EXTRA = "extra"  # the ruler's name where no ruler could be laid for want of an optional dependency


@dataclass(frozen=True)
class Record:
    """All that is known of a case on a target; ``samples`` are its seconds on the clock, by process and round.

    ``again`` are those of the same program, compiled a second time and timed in the same rounds. ``seeds`` name the
    rounds of each process: cases were timed in the same ones where these agree. ``processes`` is in how many it is to
    be timed, ``tries`` counts the runs that left something missing.
    """

    case: Case
    target: str
    numbers: tuple[Number, ...] = ()
    missing: tuple[Missing, ...] = ()
    samples: Samples = ()
    again: Samples = ()
    seeds: tuple[int, ...] = ()
    processes: int = 1
    tries: int = 0

    @property
    def correct(self) -> bool:
        return all(gap.ruler not in ("check", "compiler") for gap in self.missing)

    @property
    def unavailable(self) -> bool:
        """Is it for want of an optional dependency that nothing is known?"""
        return any(gap.ruler == EXTRA for gap in self.missing)

    @property
    def measured(self) -> bool:
        """Are all numbers there but those of the clock?"""
        return bool(self.numbers) and not self.without_clock().missing

    @property
    def settled(self) -> bool:
        """Is nothing left that another run could add? Where nothing can be timed, no time is missing."""
        timed = self.timed or not any(number.ruler in ("process", "device") for number in self.numbers)
        return self.unavailable or (timed and self.measured)

    @property
    def timed(self) -> bool:
        """Was it timed in all processes in which it is to be?"""
        return len(self.samples) >= self.processes

    def without_clock(self) -> "Record":
        """The record without what the clock said."""
        return replace(
            self,
            numbers=tuple(number for number in self.numbers if number.ruler != "clock"),
            missing=tuple(gap for gap in self.missing if gap.ruler != "clock"),
            samples=(),
            again=(),
            seeds=(),
        )
