"""What is known of a case on a target, and where it is kept while a run goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adcost.suite.effort import TRIES
from adcost.suite.vocabulary import Case, Missing, Number, case_from_json, number_from_json

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


def record_from_json(fields: Mapping[str, Any]) -> Record:
    """The record with these fields, as ``dataclasses.asdict`` wrote them."""
    known = {
        "case": case_from_json(fields["case"]),
        "numbers": tuple(map(number_from_json, fields["numbers"])),
        "missing": tuple(Missing(**gap) for gap in fields["missing"]),
        "samples": tuple(map(tuple, fields["samples"])),
        "again": tuple(map(tuple, fields["again"])),
        "seeds": tuple(fields["seeds"]),
    }
    return Record(**{**fields, **known})


@dataclass
class Journal:
    """Records on disk, a line each, the last line of a case counting; the first line is the environment of the run."""

    path: Path
    environment: Mapping[str, Any]
    records: dict[tuple[Case, str], Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, environment: Mapping[str, Any] | None = None) -> "Journal":
        """The journal of a run that was cut short, with the environment in which it began, or a new one."""
        text = path.read_text() if path.exists() else ""
        first, *lines = text.splitlines() or [""]
        known = _parsed(first)
        if known is None or "environment" not in known:
            journal = cls(path, environment or {})
            journal._start()
            return journal
        journal = cls(path, known["environment"])
        for fields in filter(None, map(_parsed, lines)):
            record = record_from_json(fields)
            journal.records[record.case, record.target] = record
        if not text.endswith("\n"):  # the last line was cut short: what follows must not be added to it
            path.write_text(text + "\n")
        return journal

    def get(self, case: Case, target: str) -> Record | None:
        return self.records.get((case, target))

    def put(self, record: Record) -> None:
        self.records[record.case, record.target] = record
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def settled(self, case: Case, target: str) -> bool:
        """Is nothing left of this case that another run could add?"""
        record = self.get(case, target)
        return record is not None and record.settled

    def close(self, wanted: Sequence[tuple[Case, str]], beside: Sequence[Case] = ()) -> None:
        """Forget these cases, and those measured ``beside`` them, if they miss nothing that a run could add.

        What an earlier run wanted that was cut short stays.
        """
        if not all(self._done_with(case, target) for case, target in wanted):
            return
        done = {*(case for case, _ in wanted), *beside}
        self.records = {key: record for key, record in self.records.items() if key[0] not in done}
        self.path.unlink()
        if self.records:  # of an earlier run that was cut short and wanted more
            self._start()
            for record in self.records.values():
                self.put(record)

    def _done_with(self, case: Case, target: str) -> bool:
        record = self.get(case, target)
        return record is not None and (record.settled or record.tries >= TRIES)

    def _start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"environment": self.environment}) + "\n")


def _parsed(line: str) -> Any:
    """What a line of JSON says; None for a line that is empty or cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
