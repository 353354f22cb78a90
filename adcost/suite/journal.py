"""Where what is known is kept while a run goes on."""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adcost.suite.effort import TRIES
from adcost.suite.record import Record
from adcost.suite.schema import record_of
from adcost.suite.vocabulary import Case
from adcost.whole import reason, write_whole


@dataclass
class Journal:
    """Records on disk, a line each, the last line of a case counting, and the environment of the run.

    Each line says of which sources, versions and machine it is (``of``, their fingerprint), after a sum of its own. A
    line that is of others, was changed, or cannot be read, costs itself: it is set aside in a file beside the journal,
    and counted in ``unread``.
    """

    path: Path
    environment: Mapping[str, Any]
    of: str = ""
    records: dict[tuple[Case, str], Record] = field(default_factory=dict)
    unread: int = 0

    @classmethod
    def open(cls, path: Path, environment: Mapping[str, Any] | None = None, of: str = "") -> "Journal":
        """The journal of a run that was cut short, with the environment in which it began, or a new one.

        Raises
        ------
        OSError
            If it cannot be read or written, or is a link: what that leads to is not ours; in one line.
        """
        if path.is_symlink():
            raise OSError(f"{path} is a link, and a journal is written over: remove it")
        journal = cls(path, environment or {}, of)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [line for line in path.read_bytes().split(b"\n") if line.strip()] if path.exists() else []
            unread = [line for line in lines if not journal._understood(line)]
            if unread:
                journal.unread = len(unread)
                with journal.aside.open("ab") as file:
                    file.write(b"\n".join(unread) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{path} cannot be read or written: {reason(error)}") from None
        if unread or not lines:
            journal._write_all()
        return journal

    @property
    def aside(self) -> Path:
        """Where lines go that could not be read."""
        return self.path.with_name(self.path.name + ".unread")

    def said(self) -> Iterator[str]:
        """What the user is to know of a journal that was found."""
        if self.records:
            began = self.environment.get("started", "before")
            yield f"going on with the run of {began}; to measure all afresh remove {self.path}"
        if self.unread:
            lines = "1 line" if self.unread == 1 else f"{self.unread} lines"
            yield f"{lines} of {self.path} could not be read, and what they said is measured again; see {self.aside}"

    def get(self, case: Case, target: str) -> Record | None:
        return self.records.get((case, target))

    def put(self, record: Record) -> None:
        """Write a record down; if that fails, nothing of it stays.

        Raises
        ------
        OSError
            In one line.
        """
        self.records[record.case, record.target] = record
        line = self._line(asdict(record)).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                written = file.write(line)
                if written != len(line):
                    os.truncate(self.path, before)  # half a line would spoil the next one
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {reason(error)}; what it holds stays") from None

    def close(self, wanted: Sequence[tuple[Case, str]], beside: Sequence[Case] = ()) -> None:
        """Forget these cases, and those measured ``beside`` them, if they miss nothing that a run could add.

        What an earlier run wanted that was cut short stays.
        """
        if not all(self._done_with(case, target) for case, target in wanted):
            return
        done = {*(case for case, _ in wanted), *beside}
        self.records = {key: record for key, record in self.records.items() if key[0] not in done}
        if self.records:  # of an earlier run that was cut short and wanted more
            self._write_all()
        else:
            self.path.unlink()

    def _done_with(self, case: Case, target: str) -> bool:
        record = self.get(case, target)
        return record is not None and (record.settled or record.tries >= TRIES)

    def _understood(self, line: bytes) -> bool:
        """Take in what a line says; False where that cannot be believed."""
        try:
            told, _, text = line.decode().partition(" ")
            if told != _sum(text):
                return False
            fields = json.loads(text)
            if fields.pop("of") != self.of:
                return False
            if "environment" in fields:
                self.environment = {**fields["environment"]}
            else:
                record = record_of(fields)
                self.records[record.case, record.target] = record
        except (ValueError, TypeError, KeyError, AttributeError):  # no JSON, or of another kind
            return False
        return True

    def _write_all(self) -> None:
        lines = [self._line({"environment": self.environment}), *(self._line(asdict(r)) for r in self.records.values())]
        write_whole(self.path, "".join(lines))

    def _line(self, fields: Mapping[str, Any]) -> str:
        text = json.dumps({"of": self.of, **fields})
        return f"{_sum(text)} {text}\n"


def _sum(text: str) -> str:
    """What tells a line that was changed."""
    return f"{zlib.crc32(text.encode()):08x}"
