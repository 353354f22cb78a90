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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from benchmarks.cases import Case, Missing, Number, Study, case_from_id, case_from_json, studies
from benchmarks.environment import ROOT
from benchmarks.rulers import clock, device, process
from benchmarks.rulers.probe import AGAIN
from benchmarks.targets import Target

RULERS = {  # what is laid on a case besides the clock, by the platform of an attached target
    "cpu": ("count", "compiler", "check", "process"),
    "cuda": ("count", "compiler", "check", "device"),
}
ALLOCATORS = {"cpu": process.ALLOCATOR, "cuda": device.ALLOCATOR}
CORRECT = ("count", "check")  # what makes a compiler's numbers count: the gradient is checked on the CPU


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
    "quick": Effort(2, clock.LEAST_ROUNDS, 40, 2, 60, compiles_all=False, fits=False),
    "full": Effort(20, 2 * clock.LEAST_ROUNDS, 100, 3, 600, compiles_all=True, fits=True),
}
UNCHECKED = {"EQX_ON_ERROR": "off"}  # Equinox's checks call Python back: such a program could not be saved and timed
TRIES = 2  # runs in which a case is tried: one that fails in both will fail again


@dataclass(frozen=True)
class Record:
    """All that is known of a case on a target; ``samples`` are its seconds on the clock, a round each.

    ``again`` are the seconds of the same executable, timed a second time in the same rounds: the noise floor.
    ``tries`` counts the runs that left something missing.
    """

    case: Case
    target: str
    numbers: tuple[Number, ...] = ()
    missing: tuple[Missing, ...] = ()
    samples: tuple[float, ...] = ()
    again: tuple[float, ...] = ()
    tries: int = 0

    @property
    def correct(self) -> bool:
        return all(gap.ruler not in ("check", "compiler") for gap in self.missing)


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

    def get(self, case: Case, target: Target) -> Record | None:
        return self.records.get((case, target.name))

    def put(self, record: Record) -> None:
        self.records[record.case, record.target] = record
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def close(self, wanted: Sequence[tuple[Case, Target]]) -> None:
        """Forget these cases on these targets, if none of them misses anything that another run could add."""
        if not all(_done_with(self.get(case, target)) for case, target in wanted):
            return
        done = {(some.study, some.size) for case, _ in wanted for some in (case, fit_case(case))}
        self.records = {key: record for key, record in self.records.items() if (key[0].study, key[0].size) not in done}
        self.path.unlink()
        if self.records:  # of an earlier run that was cut short and wanted more
            self._start()
            for record in self.records.values():
                self.put(record)

    def _start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"environment": self.environment}) + "\n")


def record_from_json(fields: Mapping[str, Any]) -> Record:
    """The record with these fields, as ``dataclasses.asdict`` wrote them."""
    numbers = tuple(map(_number, fields["numbers"]))
    missing = tuple(Missing(**gap) for gap in fields["missing"])
    samples, again = tuple(fields["samples"]), tuple(fields["again"])
    return Record(case_from_json(fields["case"]), fields["target"], numbers, missing, samples, again, fields["tries"])


def _number(fields: Mapping[str, Any]) -> Number:
    return Number(**{**fields, "flags": tuple(fields["flags"])})


def record_group(
    cases: Sequence[Case], target: Target, ask: "Ask", effort: Effort, journal: Journal, progress: Callable[[str], None]
) -> None:
    """Measure cases that share a process on the clock on an attached target, by every ruler, into the journal.

    ``ask`` is of ``measuring(target)``; groups may share it, but each goes on the clock in a process of its own. The
    cases that they are compared with are measured as well, whether they are among ``cases`` or not.
    """
    study = studies()[cases[0].study]
    missing = [case for case in cases if not _settled(journal.get(case, target))]
    if not missing:
        return
    companions = (other for case in missing for other in _compared_with(case, study).values())
    group = list(dict.fromkeys([*filter(study.affords, companions), *missing]))
    label = f"{study.name} {study.shares_process(cases[0])}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress(f"{label}: {len(group)} programs on {target.name}, compiled, checked, their memory measured")
        measure(group, target, ask, effort, journal, folder)
        runnable = [
            case for case in group if (folder / case.id).exists() and journal.records[case, target.name].correct
        ]
        untimed = [case for case in runnable if not journal.records[case, target.name].samples]
        if untimed:
            progress(f"{label}: {len(runnable)} programs on the clock")
            samples = timed_in_rounds(runnable, target, effort, journal, folder)
    for case in untimed:
        if case.id in samples:
            record = _without_clock(journal.records[case, target.name])
            numbers = (*record.numbers, *_timed(case, samples, study, target.name))
            again = samples.get(case.id + AGAIN, ())
            journal.put(replace(record, numbers=numbers, samples=samples[case.id], again=again))
    _count_tries(missing, target, journal)


def record_correct(cases: Sequence[Case], target: Target, ask: "Ask", effort: Effort, journal: Journal) -> None:
    """Count and check cases on an attached target and take no other number there: for the sake of a compiler's."""
    missing = [case for case in cases if not _settled(journal.get(case, target))]
    with tempfile.TemporaryDirectory() as name:
        measure(missing, target, ask, effort, journal, Path(name), CORRECT)
    _count_tries(missing, target, journal)


def record_compiled(
    cases: Sequence[Case], target: Target, effort: Effort, journal: Journal, progress: Callable[[str], None]
) -> list[Case]:
    """Compile cases for a target that is not attached, all in one process, and seek the largest that fits.

    Returns those that the profile's effort asks for.
    """
    programs = [case for case in cases if studies()[case.study].methods[case.method].jitted]
    wanted = [case for case in programs if effort.compiles_all or studies()[case.study].surveyed(case)]
    missing = [case for case in wanted if not _settled(journal.get(case, target))]
    with _probes(target.environment) as ask:
        for size, group in groupby(missing, key=lambda case: f"{case.study} {case.size}"):
            chosen = list(group)
            progress(f"{size}: {len(chosen)} programs compiled for {target.name}")
            for case in chosen:
                request = {"do": "measure", "case": asdict(case), "rulers": ("compiler",)}
                _put_answer(case, target, "compiler", request, ask, effort, journal)
        if effort.fits and target.unavailable() is None:
            for case in dict.fromkeys(map(fit_case, filter(_has_fit, cases))):
                if not _settled(journal.get(case, target)):
                    _fit(case, target, ask, effort, journal, progress)
    _count_tries(missing, target, journal)
    return wanted


def _fit(
    case: Case, target: Target, ask: "Ask", effort: Effort, journal: Journal, progress: Callable[[str], None]
) -> None:
    study = studies()[case.study]
    method, fit = study.methods[case.method], study.fit
    assert fit is not None
    progress(f"{case.study} {case.method}: the largest {fit.parameter} that fits {target.name}")
    most = fit.most(case) if method.compiles else method.limit[fit.parameter]
    request = {"do": "fit", "case": asdict(case), "most": most}
    _put_answer(case, target, "fit", request, ask, replace(effort, limit_seconds=10 * effort.limit_seconds), journal)


def _put_answer(
    case: Case, target: Target, ruler: str, request: Mapping[str, Any], ask: "Ask", effort: Effort, journal: Journal
) -> None:
    """Put a request about a compiler's target and write what comes of it to the journal."""
    before = journal.get(case, target)
    missing = _unavailable_here(case, target)
    numbers: tuple[Number, ...] = ()
    if missing is None:
        numbers, gaps = _answer(ask, {**request, "target": target.name}, effort.limit_seconds, ruler)
    else:
        gaps = (missing,)
    journal.put(Record(case, target.name, numbers, gaps, tries=before.tries if before else 0))


def fit_case(case: Case) -> Case:
    """The case of which it is asked how large it may be: the fit's workload, its parameter left open."""
    fit = studies()[case.study].fit
    if fit is None or not fit.where(case):
        return case
    return Case(case.study, case.method, tuple(fit.workload(case).items()), case.dtype)


def _has_fit(case: Case) -> bool:
    return fit_case(case) != case


def _count_tries(cases: Iterable[Case], target: Target, journal: Journal) -> None:
    for case in cases:
        record = journal.get(case, target)
        if record is not None and not _settled(record):
            journal.put(replace(record, tries=record.tries + 1))


def unavailable_extra(case: Case) -> str | None:
    """Why a case cannot run here: the optional dependency that is not installed."""
    extra = studies()[case.study].methods[case.method].extra
    if extra is None or find_spec(extra[1]) is not None:
        return None
    return f"{extra[1]} is not installed: pip install -e '.[{extra[0]}]'"


def _unavailable_here(case: Case, target: Target) -> Missing | None:
    reason = unavailable_extra(case) or target.unavailable()
    return Missing(EXTRA, target.name, reason) if reason else None


def unreachable(target: Target) -> str | None:
    """Why programs cannot run on a target: no plugin, or no such device is attached. None if they can."""
    reason = target.unavailable()
    if reason is not None or target.platform == "cpu":
        return reason
    with _probes(target.environment) as ask:
        numbers = ask({"do": "attached", "target": target.name}, 120)
        try:
            found = any("device" in reply for reply in numbers)
        except ProbeDied:
            found = False
    return None if found else f"no {target.name.upper()} is attached"


def record_absent(cases: Iterable[Case], target: Target, reason: str, journal: Journal) -> None:
    """Write down that a target is not there."""
    for case in cases:
        journal.put(Record(case, target.name, missing=(Missing(EXTRA, target.name, reason),)))


@contextmanager
def measuring(target: Target) -> Iterator["Ask"]:
    """A function that asks a process in which every ruler but the clock can be laid on an attached target."""
    environment = {**target.environment, **ALLOCATORS[target.platform]}
    with _probes(environment, "run", fresh="device" in RULERS[target.platform]) as ask:
        yield ask


def measure(
    cases: Iterable[Case],
    target: Target,
    ask: "Ask",
    effort: Effort,
    journal: Journal,
    folder: Path,
    rulers: Sequence[str] | None = None,
) -> None:
    """Lay every ruler but the clock on each case, and save its executable in the folder under the case's id.

    Of a case that was measured before only the executable is made again.
    """
    laid = RULERS[target.platform] if rulers is None else rulers
    for case in cases:
        before = journal.get(case, target)
        gap = _unavailable_here(case, target)
        if gap is not None:
            journal.put(Record(case, target.name, missing=(gap,)))
            continue
        known = before if _measured(before) else None
        request = {
            "do": "measure",
            "case": asdict(case),
            "target": target.name,
            "save": str(folder / case.id),
            "rulers": () if known else laid,
            "runs": effort.process_runs,
        }
        numbers, missing = _answer(ask, request, effort.limit_seconds, "compiler")
        if known:  # its numbers stand; without an executable it has no time
            if missing:
                gaps = (Missing("clock", gap.target, gap.reason) for gap in missing)
                journal.put(replace(_without_clock(known), missing=tuple(gaps)))
            continue
        record = Record(case, target.name, numbers, missing, tries=before.tries if before else 0)
        unchecked = "check" in laid and not any(number.ruler == "check" for number in numbers)
        if record.correct and unchecked and studies()[case.study].methods[case.method].differentiates:
            gap = Missing("check", target.name, "its gradient was not checked, so its numbers do not count")
            record = replace(record, missing=(*record.missing, gap))
        journal.put(record if record.correct else replace(record, numbers=()))


def _answer(
    ask: "Ask", request: Mapping[str, Any], limit: float, ruler: str
) -> tuple[tuple[Number, ...], tuple[Missing, ...]]:
    """The numbers and the gaps that a probe replies with; its death is a gap of ``ruler``, or of a later one."""
    numbers, missing = [], []
    try:
        for reply in ask(request, limit):
            if "number" in reply:
                numbers.append(_number(reply["number"]))
            elif "missing" in reply:
                missing.append(Missing(**reply["missing"]))
    except ProbeDied as death:
        missing.append(Missing("process" if numbers else ruler, request["target"], str(death)))
        if "save" in request:
            Path(request["save"]).unlink(missing_ok=True)
    return tuple(numbers), tuple(missing)


def timed_in_rounds(
    cases: Sequence[Case], target: Target, effort: Effort, journal: Journal, folder: Path
) -> dict[str, tuple[float, ...]]:
    """Seconds by the case's id, a round each, of executables that ``measure`` saved; first baselines are timed twice.

    A program that kills the process is left out and the rest start again. If nobody knows which it was, all start
    again, once.
    """
    again = [case.id for case in cases if case.method == studies()[case.study].baselines[0]]
    programs = {case.id: str(folder / case.id) for case in cases}
    blameless = 0
    while programs:
        request = {
            "do": "time",
            "programs": programs,
            "again": again,
            "budget": effort.clock_seconds,
            "least": effort.least_rounds,
            "most": effort.rounds,
            "seed": random.randrange(2**32),
        }
        samples: dict[str, list[float]] = {}
        try:
            with _probes(target.environment, "run") as ask:
                for reply in ask(request, effort.limit_seconds * (1 + len(programs))):
                    for name, seconds in reply.get("round", {}).items():
                        samples.setdefault(name, []).append(seconds)
            return {name: tuple(seconds) for name, seconds in samples.items()}
        except ProbeDied as death:
            culprit = death.running.removesuffix(AGAIN)
            if culprit not in programs:
                blameless += 1
                if blameless == 1:
                    continue
            for name in [culprit] if culprit in programs else list(programs):
                del programs[name]
                record = _without_clock(journal.records[case_from_id(name), target.name])
                journal.put(replace(record, missing=(*record.missing, Missing("clock", target.name, str(death)))))
    return {}


def _compared_with(case: Case, study: Study) -> dict[str, Case]:
    """The cases over whose time this one's is given, by the name that the ratio carries."""
    baselines = {name: case.with_method(name) for name in study.baselines if name != case.method}
    return {**baselines, **study.against(case)}


def _timed(case: Case, samples: Mapping[str, Sequence[float]], study: Study, target: str) -> list[Number]:
    mine = samples[case.id]
    numbers = [Number("clock", target, "time", "s", *clock.median_interval(mine), len(mine))]
    others = {name: other.id for name, other in _compared_with(case, study).items()}
    for name, other in {**others, case.method + AGAIN: case.id + AGAIN}.items():
        if other in samples:
            ratio = clock.paired_ratio(mine, samples[other])
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
    """Is nothing left that another run could add? Where nothing can be timed, no time is missing."""
    if record is None:
        return False
    timed = bool(record.samples) or not any(number.ruler in ("process", "device") for number in record.numbers)
    return _unavailable(record) or (timed and _measured(record))


def _done_with(record: Record | None) -> bool:
    return record is not None and (_settled(record) or record.tries >= TRIES)


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


Ask = Callable[[Mapping[str, Any], float], Iterator[Any]]


@contextmanager
def _probes(environment: Mapping[str, str], *arguments: str, fresh: bool = False) -> Iterator[Ask]:
    """A function that puts a request to a probe and yields its replies.

    It starts a new probe after a death, or if ``fresh`` for every request. Flags for XLA are added to the user's own.
    """
    started: list[Child] = []
    alive: list[Child] = []
    flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), environment.get("XLA_FLAGS"))))
    complete = {**os.environ, **UNCHECKED, **environment, "XLA_FLAGS": flags}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        note = Path(folder) / "note"

        def start(module: str, *arguments: str, stderr: IO[bytes] | int) -> Child:
            command = [sys.executable, "-m", module, *arguments]
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                cwd=ROOT,
                env=complete,
            )
            started.append(child)
            return child

        def ask(request: Mapping[str, Any], limit: float) -> Iterator[Any]:
            if fresh and alive:
                for child in alive:
                    child.kill()
                alive.clear()
            if not alive:
                errors.seek(0)
                errors.truncate()
                probe = start("benchmarks.rulers.probe", *arguments, stderr=errors)
                sampler = start("benchmarks.rulers.sampler", str(probe.pid), stderr=subprocess.DEVNULL)
                alive.extend([probe, sampler])
            probe, sampler = alive
            note.write_text("")
            _send(probe, {**request, "note": str(note)})
            while True:
                line = _line(probe, limit)
                reply = _parsed(line) if line else None
                if reply is None:  # no answer, or one cut short
                    sampler.kill()
                    alive.clear()
                    raise ProbeDied(_bury(probe, limit if line is None else None, errors), note.read_text())
                if reply.get("done"):
                    return
                if "sampler" not in reply:
                    yield reply
                    continue
                _send(sampler, {})
                sampled = _parsed(_line(sampler, limit) or "") or {}
                _send(probe, {})
                if "rise" in sampled:
                    yield {"number": asdict(Number("process", request["target"], "sampled peak", "B", sampled["rise"]))}

        try:
            yield ask
        finally:
            for child in started:
                child.kill()
                child.wait()


Child = subprocess.Popen[bytes]


def _send(child: Child, message: Mapping[str, Any]) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it died: the missing answer will tell
        child.stdin.write(json.dumps(message).encode() + b"\n")


def _line(child: Child, limit: float) -> bytes | None:
    """The next line of the answer; empty if the output was closed, None if it took longer than ``limit`` seconds."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if not selector.select(limit):
            return None
    return child.stdout.readline()


def _bury(probe: Child, late: float | None, errors: IO[bytes]) -> str:
    """End a probe that gave no answer, within ``late`` seconds or by closing its output; the reason in one line."""
    if late is not None:
        probe.kill()
        probe.wait()
        return f"gave no answer within its limit of {late:.0f} s"
    try:
        code = probe.wait(10)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.wait()
        return "closed its output without an answer"
    if code == -signal.SIGKILL:
        return "was killed (signal 9), most likely for want of memory"
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    return f"ended its process with code {code}: {''.join(last)}"[:300]
