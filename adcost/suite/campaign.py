"""Takes all numbers of a selection of cases: which ruler in which process, and what is done when a process dies.

The parent never runs a program itself. A case that fails, is killed or takes too long costs that case alone; what was
measured is in the journal at once, and a run that was cut short goes on from there.
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from adcost import _jax
from adcost.rulers.subject import Subject
from adcost.rulers.table import CHECKING, RULERS, of_target
from adcost.suite.effort import Effort
from adcost.suite.journal import EXTRA, Journal, Record
from adcost.suite.messages import Device, Find, Gap, Lay, Round, Time, Took
from adcost.suite.probe import AGAIN
from adcost.suite.probes import Ask, ProbeDied, probes
from adcost.suite.registry import Studies, load
from adcost.suite.vocabulary import Case, Missing, Number, Study, case_from_id
from adcost.targets import TARGETS, Target, not_installed

Say = Callable[[str], None]
CPU = TARGETS["cpu"]  # where gradients are checked if no other target is attached


@dataclass(frozen=True)
class Suite:
    """What a campaign works with: folders of studies, the studies in them, effort, journal, and where progress goes."""

    folders: Sequence[Path]
    studies: Studies
    effort: Effort
    journal: Journal
    say: Say

    @classmethod
    def of(cls, folders: Sequence[Path], effort: Effort, journal: Journal, say: Say = lambda line: None) -> "Suite":
        return cls(folders, load(*folders), effort, journal, say)

    def study(self, case: Case) -> Study:
        return self.studies[case.study]

    def settled(self, case: Case, target: Target) -> bool:
        return self.journal.settled(case, target.name)

    def known(self, case: Case, target: Target) -> Record:
        return self.journal.records[case, target.name]


@contextmanager
def campaign(suite: Suite, cases: Sequence[Case], targets: Sequence[Target]) -> Iterator[Callable[[Case], Record]]:
    """A function that gives a case's record. Its first call for any case of a group measures the whole group.

    A group is what shares a process on the clock. All targets are seen to, group by group, so that nothing is left to
    do at the end but to close the journal. The record is that of the first attached target; without one, that of the
    CPU, on which the numbers of the compilers are checked.
    """
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault(_group(suite, case), []).append(case)
    attached = [target for target in targets if target.attached]
    compilers = [target for target in targets if not target.attached]
    absent = {target: reason for target in attached if (reason := unreachable(target, suite.folders))}
    present = [target for target in attached if target not in absent]
    home = home_of(targets, present)
    begun: set[tuple[str, str]] = set()
    finished: set[tuple[str, str]] = set()
    asked: list[tuple[Case, str]] = []

    def measured(case: Case) -> Record:
        key = _group(suite, case)
        group = groups[key]
        if key not in begun:
            begun.add(key)
            for target, reason in absent.items():
                record_absent(suite, group, target, reason)
            for target in present:
                record_group(suite, group, target, asks[target.name])
            if compilers and not present:
                record_correct(suite, group, home, asks[home.name])
            correct = [case for case in group if (record := suite.journal.get(case, home.name)) and record.numbers]
            for target in compilers:
                wanted = record_compiled(suite, correct, target, asks[target.name])
                asked.extend((case, target.name) for case in wanted)
            finished.add(key)
        return suite.known(case, home)

    with ExitStack() as stack:
        running = dict.fromkeys([home, *present]) if home not in absent else ()
        asks = {target.name: stack.enter_context(measuring(target, suite.folders)) for target in running}
        asks |= {target.name: stack.enter_context(probes(target, suite.folders)) for target in compilers}
        yield measured
    if len(finished) == len(groups):
        wanted = [(case, target.name) for target in dict.fromkeys((home, *attached)) for case in cases]
        suite.journal.close([*wanted, *asked], [fit_case(suite, case) for case in cases])


def home_of(targets: Sequence[Target], present: Sequence[Target]) -> Target:
    """Where gradients are checked: without a device of its own a compiler's numbers count by the CPU's check."""
    compilers = any(not target.attached for target in targets)
    return next(iter(present), CPU if compilers else targets[0])


def records(suite: Suite, cases: Sequence[Case], targets: Sequence[Target]) -> list[Record]:
    """The records of these cases, and of their largest that fit, on these targets and on the CPU."""
    wanted = {*cases, *(fit_case(suite, case) for case in cases)}
    names = {CPU.name, *(target.name for target in targets)}
    return [record for (case, name), record in suite.journal.records.items() if case in wanted and name in names]


def _group(suite: Suite, case: Case) -> tuple[str, str]:
    return case.study, suite.study(case).shares_process(case)


def record_group(suite: Suite, cases: Sequence[Case], target: Target, ask: Ask) -> None:
    """Measure cases that share a process on the clock on an attached target, by every ruler, into the journal.

    ``ask`` is of ``measuring(target)``; groups may share it, but each goes on the clock in a process of its own. The
    cases that they are compared with are measured as well, whether they are among ``cases`` or not.
    """
    study = suite.study(cases[0])
    missing = [case for case in cases if not suite.settled(case, target)]
    if not missing:
        return
    companions = (other for case in missing for other in _compared_with(case, study).values())
    group = list(dict.fromkeys([*filter(study.affords, companions), *missing]))
    label = f"{study.name} {study.shares_process(cases[0])}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite.say(f"{label}: {len(group)} programs on {target.name}, compiled, checked, their memory measured")
        measure(suite, group, target, ask, folder)
        runnable = [case for case in group if (folder / case.id).exists() and suite.known(case, target).correct]
        untimed = [case for case in runnable if not suite.known(case, target).samples]
        if untimed:
            suite.say(f"{label}: {len(runnable)} programs on the clock")
            samples = timed_in_rounds(suite, runnable, target, folder)
    for case in untimed:
        if case.id in samples:
            record = suite.known(case, target).without_clock()
            numbers = (*record.numbers, *_timed(case, samples, study, target))
            again = samples.get(case.id + AGAIN, ())
            suite.journal.put(replace(record, numbers=numbers, samples=samples[case.id], again=again))
    _count_tries(suite, missing, target)


def record_correct(suite: Suite, cases: Sequence[Case], target: Target, ask: Ask) -> None:
    """Count and check cases on an attached target and take no other number there: for the sake of a compiler's."""
    missing = [case for case in cases if not suite.settled(case, target)]
    with tempfile.TemporaryDirectory() as name:
        measure(suite, missing, target, ask, Path(name), CHECKING)
    _count_tries(suite, missing, target)


def record_compiled(suite: Suite, cases: Sequence[Case], target: Target, ask: Ask) -> list[Case]:
    """Compile cases for a target that is not attached, and seek the largest that fits.

    Returns those that the profile's effort asks for.
    """
    programs = [case for case in cases if suite.study(case).methods[case.method].jitted]
    wanted = [case for case in programs if suite.effort.compiles_all or suite.study(case).surveyed(case)]
    missing = [case for case in wanted if not suite.settled(case, target)]
    for size, group in groupby(missing, key=lambda case: f"{case.study} {case.size}"):
        chosen = list(group)
        suite.say(f"{size}: {len(chosen)} programs compiled for {target.name}")
        for case in chosen:
            lay = Lay(case, target.name, tuple(of_target(target)))
            _put_answer(suite, lay, target, "compiler", ask, suite.effort.limit_seconds)
    if suite.effort.fits and target.unavailable() is None:
        for case in dict.fromkeys(fit_case(suite, case) for case in cases if _has_fit(suite, case)):
            if not suite.settled(case, target):
                suite.say(f"{case.study} {case.method}: the largest that fits {target.name}")
                lay = Lay(case, target.name, ("fit",))
                _put_answer(suite, lay, target, "fit", ask, 10 * suite.effort.limit_seconds)
    _count_tries(suite, missing, target)
    return wanted


def _put_answer(suite: Suite, lay: Lay, target: Target, ruler: str, ask: Ask, limit: float) -> None:
    """Put a request about a compiler's target and write what comes of it to the journal."""
    before = suite.journal.get(lay.case, target.name)
    gap = _unavailable_here(suite, lay.case, target)
    numbers, gaps = ((), (gap,)) if gap is not None else _answer(ask, lay, limit, ruler)
    suite.journal.put(Record(lay.case, target.name, numbers, gaps, tries=before.tries if before else 0))


def fit_case(suite: Suite, case: Case) -> Case:
    """The case of which it is asked how large it may be: the fit's workload, its parameter left open."""
    fit = suite.study(case).fit
    if fit is None or not fit.where(case):
        return case
    return Case(case.study, case.method, tuple(fit.workload(case).items()), case.dtype)


def _has_fit(suite: Suite, case: Case) -> bool:
    return fit_case(suite, case) != case


def _count_tries(suite: Suite, cases: Iterable[Case], target: Target) -> None:
    for case in cases:
        record = suite.journal.get(case, target.name)
        if record is not None and not record.settled:
            suite.journal.put(replace(record, tries=record.tries + 1))


def unavailable(study: Study, case: Case) -> str | None:
    """Why a case cannot run here: an optional dependency is not installed, or this JAX lacks a setting."""
    method = study.methods[case.method]
    return not_installed(method.extra) or _jax.absent_flag(method.flags)


def _unavailable_here(suite: Suite, case: Case, target: Target) -> Missing | None:
    reason = unavailable(suite.study(case), case) or target.unavailable()
    return Missing(EXTRA, target.name, reason) if reason else None


def unreachable(target: Target, folders: Sequence[Path]) -> str | None:
    """Why programs cannot run on a target: no plugin, or no such device is attached. None if they can."""
    reason = target.unavailable()
    if reason is not None or target.platform == "cpu":
        return reason
    with probes(target, folders) as ask:
        try:
            found = any(isinstance(reply, Device) for reply in ask(Find(target.name), 120))
        except ProbeDied:
            found = False
    return None if found else f"no {target.name.upper()} is attached"


def record_absent(suite: Suite, cases: Iterable[Case], target: Target, reason: str) -> None:
    """Write down that a target is not there."""
    for case in cases:
        suite.journal.put(Record(case, target.name, missing=(Missing(EXTRA, target.name, reason),)))


@contextmanager
def measuring(target: Target, folders: Sequence[Path]) -> Iterator[Ask]:
    """A function that asks a process in which every ruler but the clock can be laid on an attached target."""
    rulers = [RULERS[name] for name in of_target(target)]
    environment = {name: value for ruler in rulers for name, value in ruler.environment.items()}
    with probes(target, folders, environment, fresh=any(ruler.alone for ruler in rulers)) as ask:
        yield ask


def measure(
    suite: Suite, cases: Iterable[Case], target: Target, ask: Ask, folder: Path, rulers: Sequence[str] | None = None
) -> None:
    """Lay every ruler but the clock on each case, and save its executable in the folder under the case's id.

    Of a case that was measured before only the executable is made again.
    """
    laid = of_target(target) if rulers is None else rulers
    for case in cases:
        before = suite.journal.get(case, target.name)
        gap = _unavailable_here(suite, case, target)
        if gap is not None:
            suite.journal.put(Record(case, target.name, missing=(gap,)))
            continue
        known = before if before is not None and before.measured else None
        lay = Lay(case, target.name, () if known else tuple(laid), suite.effort.process_runs, str(folder / case.id))
        numbers, missing = _answer(ask, lay, suite.effort.limit_seconds, "compiler")
        if known:  # its numbers stand; without an executable it has no time
            if missing:
                gaps = (Missing("clock", gap.target, gap.reason) for gap in missing)
                suite.journal.put(replace(known.without_clock(), missing=tuple(gaps)))
            continue
        record = Record(case, target.name, numbers, missing, tries=before.tries if before else 0)
        unchecked = "check" in laid and not any(number.ruler == "check" for number in numbers)
        if record.correct and unchecked and suite.study(case).methods[case.method].differentiates:
            gap = Missing("check", target.name, "its gradient was not checked, so its numbers do not count")
            record = replace(record, missing=(*record.missing, gap))
        suite.journal.put(record if record.correct else replace(record, numbers=()))


def _answer(ask: Ask, lay: Lay, limit: float, ruler: str) -> tuple[tuple[Number, ...], tuple[Missing, ...]]:
    """The numbers and the gaps that a probe replies with; its death is a gap of ``ruler``, or of a later one."""
    numbers, missing = [], []
    try:
        for reply in ask(lay, limit):
            if isinstance(reply, Took):
                numbers.append(reply.number)
            elif isinstance(reply, Gap):
                missing.append(reply.missing)
    except ProbeDied as death:
        missing.append(Missing("process" if numbers else ruler, lay.target, str(death)))
        if lay.save is not None:
            Path(lay.save).unlink(missing_ok=True)
    return tuple(numbers), tuple(missing)


def timed_in_rounds(suite: Suite, cases: Sequence[Case], target: Target, folder: Path) -> dict[str, tuple[float, ...]]:
    """Seconds by the case's id, a round each, of executables that ``measure`` saved; first baselines are timed twice.

    A program that kills the process is left out and the rest start again. If nobody knows which it was, all start
    again, once.
    """
    effort = suite.effort
    again = tuple(case.id for case in cases if case.method == suite.study(case).baselines[0])
    programs = {case.id: str(folder / case.id) for case in cases}
    blameless = 0
    while programs:
        seed = random.randrange(2**32)
        request = Time(target.name, programs, again, effort.clock_seconds, effort.least_rounds, effort.rounds, seed)
        samples: dict[str, list[float]] = {}
        try:
            with probes(target, suite.folders) as ask:
                for reply in ask(request, effort.limit_seconds * (1 + len(programs))):
                    for name, seconds in reply.seconds.items() if isinstance(reply, Round) else ():
                        samples.setdefault(name, []).append(seconds)
            return {name: tuple(seconds) for name, seconds in samples.items()}
        except ProbeDied as death:
            culprit = death.running.removesuffix(AGAIN)
            if culprit not in programs:
                blameless += 1
                if blameless == 1:
                    continue
            for name in [culprit] if culprit in programs else list(programs):
                programs = {other: path for other, path in programs.items() if other != name}
                record = suite.known(case_from_id(name), target).without_clock()
                gap = Missing("clock", target.name, str(death))
                suite.journal.put(replace(record, missing=(*record.missing, gap)))
    return {}


def _compared_with(case: Case, study: Study) -> dict[str, Case]:
    """The cases over whose time this one's is given, by the name that the ratio carries."""
    variant_of = study.methods[case.method].variant_of
    names = (*study.baselines, *([variant_of] if variant_of else []))
    return {**{name: case.with_method(name) for name in names if name != case.method}, **study.against(case)}


def _timed(case: Case, samples: Mapping[str, Sequence[float]], study: Study, target: Target) -> list[Number]:
    """What the clock says of a case: its own seconds, and over those of what it is compared with."""
    compared = {name: other.id for name, other in _compared_with(case, study).items()}
    compared[case.method + AGAIN] = case.id + AGAIN
    others = {name: samples[key] for name, key in compared.items() if key in samples}
    return list(RULERS["clock"].take(Subject(case, study, target, seconds=samples[case.id], others=others)))
