"""Takes all numbers of a group of cases: which ruler in which process, and what is done when a process dies.

The parent never runs a program itself. A case that fails, is killed or takes too long costs that case alone; what was
measured is in the journal at once, and a run that was cut short goes on from there.
"""

import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import psutil
from memory_profiler import memory_usage

from benchmarks.cases import Case, Missing, Number, case_from_json, studies
from benchmarks.environment import ROOT
from benchmarks.rulers import clock, process
from benchmarks.rulers.probe import AGAIN
from benchmarks.targets import Target

RULERS = ("count", "compiler", "check", "process")


@dataclass(frozen=True)
class Effort:
    """How much work a profile puts into a number."""

    clock_seconds: float  # a group on the clock, beyond the least number of rounds
    rounds: int  # at most
    process_runs: int  # peaks of which the highest counts
    limit_seconds: float  # after which a case is given up


EFFORTS = {
    "quick": Effort(4, 60, 2, 60),
    "full": Effort(30, 100, 3, 600),
    "noise": Effort(4, 60, 1, 60),
}


@dataclass(frozen=True)
class Record:
    """All that is known of a case; ``samples`` are its seconds on the clock, a round each.

    ``again`` are the seconds of the same executable, timed a second time in the same rounds: the noise floor.
    """

    case: Case
    numbers: tuple[Number, ...] = ()
    missing: tuple[Missing, ...] = ()
    samples: tuple[float, ...] = ()
    again: tuple[float, ...] = ()

    @property
    def correct(self) -> bool:
        return all(gap.ruler not in ("check", "compiler") for gap in self.missing)


@dataclass
class Journal:
    """Records on disk, a line each, the last line of a case counting; a different fingerprint starts it afresh."""

    path: Path
    fingerprint: str
    records: dict[Case, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> "Journal":
        journal = cls(path, fingerprint)
        text = path.read_text() if path.exists() else ""
        first, *lines = text.splitlines() or [""]
        if _parsed(first) == {"fingerprint": fingerprint}:
            for fields in filter(None, map(_parsed, lines)):
                record = record_from_json(fields)
                journal.records[record.case] = record
            if not text.endswith("\n"):  # the last line was cut short: what follows must not be added to it
                path.write_text(text + "\n")
        else:
            journal._start()
        return journal

    def put(self, record: Record) -> None:
        self.records[record.case] = record
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def close(self, cases: Iterable[Case]) -> None:
        """Forget these cases, if none of them misses anything that another run could add."""
        wanted = list(cases)
        if not all(_settled(self.records.get(case)) for case in wanted):
            return
        done = {(case.study, case.size) for case in wanted}
        self.records = {case: record for case, record in self.records.items() if (case.study, case.size) not in done}
        self.path.unlink()
        if self.records:  # of an earlier run that was cut short and wanted more
            self._start()
            for record in self.records.values():
                self.put(record)

    def _start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"fingerprint": self.fingerprint}) + "\n")


def record_from_json(fields: Mapping[str, Any]) -> Record:
    """The record with these fields, as ``dataclasses.asdict`` wrote them."""
    numbers = tuple(map(_number, fields["numbers"]))
    missing = tuple(Missing(**gap) for gap in fields["missing"])
    samples = (tuple(fields[name]) for name in ("samples", "again"))
    return Record(case_from_json(fields["case"]), numbers, missing, *samples)


def _number(fields: Mapping[str, Any]) -> Number:
    return Number(**{**fields, "flags": tuple(fields["flags"])})


def record_group(
    cases: Sequence[Case], target: Target, effort: Effort, journal: Journal, progress: Callable[[str], None]
) -> None:
    """Measure cases of one study and size, each by every ruler, and write them to the journal as they come.

    The study's baselines are measured with them whether they are among ``cases`` or not.
    """
    study = studies()[cases[0].study]
    missing = [case for case in cases if not _settled(journal.records.get(case))]
    if not missing:
        return
    companions = filter(study.affords, map(cases[0].with_method, study.baselines))
    group = list(dict.fromkeys([*companions, *missing]))
    label = f"{study.name} {cases[0].size}"
    with tempfile.TemporaryDirectory() as folder:
        progress(f"{label}: {len(group)} programs, compiled, checked, their memory measured")
        _measure(group, target, effort, journal, Path(folder))
        runnable = [case for case in group if (Path(folder) / case.id).exists() and journal.records[case].correct]
        progress(f"{label}: {len(runnable)} programs on the clock")
        samples = _time(runnable, study.baselines[0], target, effort, journal, Path(folder))
    for case in runnable:
        if case.method in samples:
            record = _without_clock(journal.records[case])
            numbers = (*record.numbers, *_timed(case.method, samples, study.baselines, target.name))
            again = samples.get(case.method + AGAIN, ())
            journal.put(replace(record, numbers=numbers, samples=samples[case.method], again=again))


def unavailable_extra(case: Case) -> str | None:
    """Why a case cannot run here: the optional dependency that is not installed."""
    extra = studies()[case.study].methods[case.method].extra
    if extra is None or find_spec(extra[1]) is not None:
        return None
    return f"{extra[1]} is not installed: pip install -e '.[{extra[0]}]'"


def _measure(cases: Iterable[Case], target: Target, effort: Effort, journal: Journal, folder: Path) -> None:
    environment = {**target.environment, **process.ALLOCATOR}
    with _probes(environment, folder / "note") as ask:
        for case in cases:
            reason = unavailable_extra(case)
            if reason is not None:
                journal.put(Record(case, missing=(Missing(EXTRA, target.name, reason),)))
                continue
            done = _measured(journal.records.get(case))
            request = {"do": "measure", "case": asdict(case), "target": target.name, "save": str(folder / case.id)}
            rulers = () if done else RULERS
            numbers, missing = [], []
            try:
                for reply in ask({**request, "rulers": rulers, "runs": effort.process_runs}, effort.limit_seconds):
                    if "number" in reply:
                        numbers.append(_number(reply["number"]))
                    elif "missing" in reply:
                        missing.append(Missing(**reply["missing"]))
            except ProbeDied as death:
                missing.append(Missing("process" if numbers else "compiler", target.name, str(death)))
                (folder / case.id).unlink(missing_ok=True)
            if not done:
                record = Record(case, tuple(numbers), tuple(missing))
                unchecked = not any(number.ruler == "check" for number in numbers)
                if record.correct and unchecked and studies()[case.study].methods[case.method].differentiates:
                    gap = Missing("check", target.name, "its gradient was not checked, so its numbers do not count")
                    record = replace(record, missing=(*record.missing, gap))
                journal.put(record if record.correct else replace(record, numbers=()))


def _time(
    cases: Sequence[Case], again: str, target: Target, effort: Effort, journal: Journal, folder: Path
) -> dict[str, tuple[float, ...]]:
    """Seconds by program, a round each; a program that kills the process is left out and the rest start again."""
    programs = {case.method: str(folder / case.id) for case in cases}
    while programs:
        request = {
            "do": "time",
            "case": asdict(cases[0]),
            "programs": programs,
            "again": again,
            "budget": effort.clock_seconds,
            "rounds": effort.rounds,
            "seed": random.randrange(2**32),
        }
        samples: dict[str, list[float]] = {}
        try:
            with _probes(target.environment, folder / "note") as ask:
                for reply in ask(request, effort.limit_seconds * (1 + len(programs))):
                    for name, seconds in reply.get("round", {}).items():
                        samples.setdefault(name, []).append(seconds)
            return {name: tuple(seconds) for name, seconds in samples.items()}
        except ProbeDied as death:
            culprit = death.running.removesuffix(AGAIN)
            for name in [culprit] if culprit in programs else list(programs):
                del programs[name]
                record = _without_clock(journal.records[cases[0].with_method(name)])
                journal.put(replace(record, missing=(*record.missing, Missing("clock", target.name, str(death)))))
    return {}


def _timed(method: str, samples: Mapping[str, Sequence[float]], baselines: Sequence[str], target: str) -> list[Number]:
    mine = samples[method]
    numbers = [Number("clock", target, "time", "s", *clock.median_interval(mine), len(mine))]
    for name in (*baselines, method + AGAIN):
        if name in samples and name != method:
            ratio = clock.paired_ratio(mine, samples[name])
            numbers.append(Number("clock", target, f"time / {name}", "1", *ratio, len(mine)))
    return numbers


EXTRA = "extra"  # the ruler's name where no ruler could be laid for want of an optional dependency


def _unavailable(record: Record) -> bool:
    return any(gap.ruler == EXTRA for gap in record.missing)


def _without_clock(record: Record) -> Record:
    return replace(
        record,
        numbers=tuple(number for number in record.numbers if number.ruler != "clock"),
        missing=tuple(gap for gap in record.missing if gap.ruler != "clock"),
        samples=(),
        again=(),
    )


def _measured(record: Record | None) -> bool:
    return record is not None and bool(record.numbers) and not _without_clock(record).missing


def _settled(record: Record | None) -> bool:
    return record is not None and (bool(record.samples) or _unavailable(record))


def _parsed(line: str | bytes) -> Any:
    """What a line of JSON says; None for a line that is empty or cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


class ProbeDied(RuntimeError):
    """The probe's process ended before its answer; ``running`` is the program that ran."""

    def __init__(self, reason: str, running: str) -> None:
        super().__init__(reason)
        self.running = running


@contextmanager
def _probes(
    environment: Mapping[str, str], note: Path
) -> Iterator[Callable[[Mapping[str, Any], float], Iterator[Any]]]:
    """A function that puts a request to a probe and yields its replies; it starts a new probe after a death."""
    alive: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as errors:

        def start() -> subprocess.Popen[bytes]:
            errors.seek(0)
            errors.truncate()
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rulers.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=ROOT,
                env={**os.environ, **environment},
            )

        def ask(request: Mapping[str, Any], limit: float) -> Iterator[Any]:
            if not alive:
                alive.append(start())
            probe = alive[0]
            note.write_text("")
            _send(probe, {**request, "note": str(note)})
            sampled: Callable[[], float] = float
            while True:
                reply = _parsed(_line(probe, limit))
                if reply is None:  # no answer, or one cut short
                    alive.clear()
                    raise ProbeDied(_bury(probe, limit, errors), note.read_text())
                if reply.get("done"):
                    return
                if reply.get("sampler") == "start":
                    sampled = _sampler(probe.pid)
                    _send(probe, {})
                elif reply.get("sampler") == "stop":
                    number = Number("process", request["target"], "sampled peak", "B", sampled())
                    _send(probe, {})
                    yield {"number": asdict(number)}
                else:
                    yield reply

        try:
            yield ask
        finally:
            for probe in alive:
                probe.kill()
                probe.wait()


def _send(probe: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    assert probe.stdin is not None
    with suppress(BrokenPipeError):  # it died: the missing answer will tell
        probe.stdin.write(json.dumps(message).encode() + b"\n")


def _line(probe: subprocess.Popen[bytes], limit: float) -> bytes:
    """The next line of the probe's answer; empty if it died or took longer than ``limit`` seconds."""
    assert probe.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(probe.stdout, selectors.EVENT_READ)
        if not selector.select(limit):
            return b""
    return probe.stdout.readline()


def _bury(probe: subprocess.Popen[bytes], limit: float, errors: IO[bytes]) -> str:
    """End a probe that gave no answer; the reason in one line."""
    try:
        code = probe.wait(1)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.wait()
        return f"gave no answer within its limit of {limit:.0f} s"
    if code == -signal.SIGKILL:
        return "was killed (signal 9), most likely for want of memory"
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    return f"ended its process with code {code}: {''.join(last)}"[:300]


def _sampler(pid: int) -> Callable[[], float]:
    """Start to sample a process's resident memory by memory-profiler; the result ends it and gives the rise in bytes.

    Given a process's number, memory-profiler samples from this thread; only for a function would it fork.
    """
    stop = threading.Event()
    sampled: list[float] = []
    with suppress(psutil.NoSuchProcess):
        sampled.append(memory_usage(pid, max_usage=True))

    def sample() -> None:
        with suppress(psutil.NoSuchProcess):  # it died: there is nothing left to sample
            while not stop.is_set():
                sampled.append(memory_usage(pid, interval=0.002, timeout=0.05, max_usage=True))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def result() -> float:
        stop.set()
        thread.join()
        return float(max(sampled) - sampled[0]) * 2**20 if sampled else 0.0

    return result
