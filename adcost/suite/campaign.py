"""Takes all numbers of a selection of cases: which ruler in which process, and what is done when a process dies.

The parent never runs a program itself. A case that fails, is killed or takes too long costs that case alone; what was
measured is in the journal at once, and a run that was cut short goes on from there.
"""

import random
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from adcost import _jax
from adcost.rulers.subject import Subject
from adcost.rulers.table import CHECKING, RULERS, of_target
from adcost.suite.effort import Effort
from adcost.suite.journal import Journal
from adcost.suite.messages import AGAIN, AtDeath, Device, Find, Gap, Lay, Round, Time, Took
from adcost.suite.probes import Ask, ProbeDied, probes
from adcost.suite.record import EXTRA, Record, Samples
from adcost.suite.registry import Studies
from adcost.suite.vocabulary import Case, Missing, Number, Study
from adcost.targets import TARGETS, Target, device_of, named, not_installed

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

    @cached_property
    def ends(self) -> frozenset[Case]:
        """The last size of every method."""
        return frozenset(case for study in self.studies.values() for case in study.ends())

    def with_clusters(self, targets: Sequence[Target], cases: Iterable[Case]) -> list[Target]:
        """The targets, and the clusters of these devices on which the cases' studies are measured as well."""
        studies = {case.study: self.study(case) for case in cases}
        names = [name for study in studies.values() for name in study.clusters.get(self.effort.profile, ())]
        devices = {target.name for target in targets}
        return list(dict.fromkeys([*targets, *(named(name) for name in names if device_of(name) in devices)]))

    def of_target(self, target: Target, cases: Iterable[Case]) -> list[Case]:
        """The cases that are measured on a target."""
        return [case for case in cases if self.study(case).measured_on(target)]

    def study(self, case: Case) -> Study:
        return self.studies[case.study]

    def settled(self, case: Case, target: Target) -> bool:
        """Is nothing left that this run could add? What was not to be had before may be here now."""
        known = self.journal.get(case, target.name)
        if known is not None and known.unavailable:
            return _unavailable_here(self, case, target) is not None
        return known is not None and known.settled

    def known(self, case: Case, target: Target) -> Record:
        return self.journal.records[case, target.name]


class Ended(RuntimeError):
    """The run ended before a case; the reason in one line. ``at_once``: before any."""

    def __init__(self, reason: str, at_once: bool) -> None:
        super().__init__(reason)
        self.at_once = at_once


@dataclass
class Campaign:
    """All cases of a selection on all targets, which are measured when the first record is asked for.

    Study by study programs are compiled, checked and their memory is measured, and they are timed in a first process;
    then everything is timed in the other processes, one after the other, so that those of one program are spread over
    the run. The record of a case is that of the first attached target; without one, that of the CPU, on which the
    numbers of the compilers are checked. Studies of clusters are measured on these as well.
    """

    suite: Suite
    cases: Sequence[Case]
    targets: Sequence[Target]
    ended: str = ""  # why the run ended before all was measured
    _asked: list[tuple[Case, str]] | None = None  # of compilers, once everything is measured

    def record(self, case: Case) -> Record:
        """The record of a case.

        Raises
        ------
        Ended
            If the run ended before it.
        """
        if self._asked is None and not self.ended:
            self._measure()
        known = self.suite.journal.get(case, self._home.name)
        if known is None:
            why = self.ended or "it was left out of its group"
            raise Ended(f"not reached: {why}", at_once=not self.suite.journal.records)
        return self._with_reason(known)

    def records(self) -> list[Record]:
        """All that is known of the cases, and of their largest that fit, on the targets and on the CPU.

        A case that was not reached has a record that says why.
        """
        wanted = {*self.cases, *(fit_case(self.suite, case) for case in self.cases)}
        names = {CPU.name, *(target.name for target in self._targets)}
        known = self.suite.journal.records
        return [
            *(self._with_reason(record) for (case, name), record in known.items() if case in wanted and name in names),
            *(
                self._with_reason(Record(case, self._home.name))
                for case in self.suite.of_target(self._home, self.cases if self.ended else ())
                if (case, self._home.name) not in known
            ),
        ]

    def _with_reason(self, record: Record) -> Record:
        """The record; of a run that ended early with the reason for what it still lacks."""
        if not self.ended or record.settled:
            return record
        gap = Missing("run", record.target, f"not reached: {self.ended}", fault=self.ended != INTERRUPTED)
        return replace(record, missing=(*record.missing, gap))

    def forget(self) -> None:
        """Take out of the journal what misses nothing that a run could add: it is safe elsewhere."""
        if self._asked is None:
            return
        attached = (target for target in self._targets if target.attached)
        wanted = [
            (case, target.name)
            for target in dict.fromkeys((self._home, *attached))
            for case in self.suite.of_target(target, self.cases)
        ]
        companions = (other for case in self.cases for other in _compared_with(case, self.suite.study(case)).values())
        fits = (fit_case(self.suite, case) for case in self.cases)
        self.suite.journal.close([*wanted, *self._asked], [*companions, *fits])

    def _measure(self) -> None:
        try:
            if self._home.platform == "cpu" and self._home in self._absent:
                raise OSError(self._absent[self._home])
            for target, why in self._absent.items():
                record_absent(self.suite, self.suite.of_target(target, self.cases), target, why)
            self._asked = _measure_all(self.suite, self.cases, self._targets, self._present, self._home)
        except KeyboardInterrupt:
            self.ended = INTERRUPTED
            raise
        except Exception as error:  # whatever stops the run, what it has measured is not lost
            foreseen = isinstance(error, OSError | MemoryError)
            self.ended = f"the run ended early: {error if foreseen and str(error) else _jax.first_line(error)}"
            if not foreseen:
                self.suite.say(traceback.format_exc())

    @cached_property
    def _targets(self) -> list[Target]:
        return self.suite.with_clusters(self.targets, self.cases)

    @cached_property
    def _absent(self) -> dict[Target, str]:
        """The attached targets that are not there, and why."""
        attached = (target for target in self._targets if target.attached)
        return {target: why for target in attached if (why := unreachable(target, self.suite.folders))}

    @cached_property
    def _present(self) -> list[Target]:
        return [target for target in self._targets if target.attached and target not in self._absent]

    @cached_property
    def _home(self) -> Target:
        return home_of(self._targets, self._present)


INTERRUPTED = "the run was interrupted"


def _measure_all(
    suite: Suite, cases: Sequence[Case], targets: Sequence[Target], present: Sequence[Target], home: Target
) -> list[tuple[Case, str]]:
    """Measure cases on the targets that are present, compile them for the others; returns what these were asked."""
    compilers = [target for target in targets if not target.attached]
    asked: list[tuple[Case, str]] = []
    with ExitStack() as stack:
        running = dict.fromkeys([home, *present]) if present or compilers else ()
        asks = {target.name: stack.enter_context(measuring(target, suite.folders)) for target in running}
        asks |= {target.name: stack.enter_context(probes(target, suite.folders)) for target in compilers}
        clocks = [stack.enter_context(clock_of(suite, target)) for target in present]
        for study in dict.fromkeys(case.study for case in cases):
            for group in _groups(suite, [case for case in cases if case.study == study]):
                for clock in clocks:
                    record_group(clock, suite.of_target(clock.target, group), asks[clock.target.name])
                if compilers and not present:
                    record_correct(suite, group, home, asks[home.name])
                correct = [case for case in group if (known := suite.journal.get(case, home.name)) and known.numbers]
                for target in compilers:
                    wanted = record_compiled(suite, suite.of_target(target, correct), target, asks[target.name])
                    asked.extend((case, target.name) for case in wanted)
            for clock in clocks:
                clock.run(study)
        for _ in range(1, suite.effort.processes):
            for clock in clocks:
                clock.run()
        for clock in clocks:
            clock.finish()
    return asked


def _groups(suite: Suite, cases: Sequence[Case]) -> list[list[Case]]:
    """Cases of one study in groups that are measured one after the other."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(suite.study(case).group(case), []).append(case)
    return list(groups.values())


def home_of(targets: Sequence[Target], present: Sequence[Target]) -> Target:
    """Where gradients are checked: without a device of its own a compiler's numbers count by the CPU's check."""
    compilers = any(not target.attached for target in targets)
    return next(iter(present), CPU if compilers else targets[0])


def record_group(clock: "Clock", cases: Sequence[Case], ask: Ask) -> None:
    """Measure a group of cases by every ruler but the clock, into the journal, and make them known to the clock.

    ``ask`` is of ``measuring(clock.target)``. The cases that they are compared with are measured as well, whether they
    are among ``cases`` or not.
    """
    suite, target = clock.suite, clock.target
    missing = [case for case in cases if not suite.settled(case, target)]
    if not missing:
        return
    study = suite.study(cases[0])
    sets = {study.shares_rounds(case) for case in missing}
    sharing = [case for case in cases if study.shares_rounds(case) in sets]
    companions = (other for case in sharing for other in _compared_with(case, study).values())
    group = list(dict.fromkeys([*filter(study.affords, companions), *sharing]))
    suite.say(f"{study.name} {study.group(cases[0])}: {len(group)} programs on {target.name}, compiled and checked")
    measure(suite, group, target, ask, clock.folder)
    clock.add(group)
    clock.tried.extend(missing)


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
    """Why programs cannot run on a target: no plugin, no such device, or JAX does not start. None if they can."""
    reason = target.unavailable()
    if reason is not None:
        return reason
    try:
        with probes(target, folders) as ask:
            found = any(isinstance(reply, Device) for reply in ask(Find(target.name), 120))
    except (ProbeDied, OSError) as error:
        if target.platform == "cpu":
            return f"JAX does not start for {target.name}: {error}"
        found = False
    return None if found else f"no {target.name.upper()} is attached"


def record_absent(suite: Suite, cases: Iterable[Case], target: Target, reason: str) -> None:
    """Write down that a target is not there; what was measured when it was stays."""
    for case in cases:
        known = suite.journal.get(case, target.name)
        if known is None or not known.numbers:
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
        asked = [name for name in laid if name != "lines" or suite.effort.all_lines or case in suite.ends]
        lay = Lay(case, target.name, () if known else tuple(asked), suite.effort.process_runs, str(folder / case.id))
        numbers, missing = _answer(ask, lay, suite.effort.limit_seconds, "compiler")
        if known:  # its numbers stand; without an executable it has no time
            if missing:
                gaps = (Missing("clock", gap.target, gap.reason) for gap in missing)
                suite.journal.put(replace(known.without_clock(), missing=tuple(gaps)))
            continue
        processes = suite.effort.processes if suite.study(case).baselines else 0
        tries = before.tries if before else 0
        record = Record(case, target.name, numbers, missing, processes=processes, tries=tries)
        unchecked = "check" in laid and not any(number.ruler == "check" for number in numbers)
        if record.correct and unchecked and suite.study(case).methods[case.method].differentiates:
            gap = Missing("check", target.name, "its gradient was not checked, so its numbers do not count")
            record = replace(record, missing=(*record.missing, gap))
        suite.journal.put(record if record.correct else replace(record, numbers=()))


def _answer(ask: Ask, lay: Lay, limit: float, ruler: str) -> tuple[tuple[Number, ...], tuple[Missing, ...]]:
    """The numbers and the gaps that a probe replies with; its death is a gap of ``ruler``, or of a later one, unless it
    was said what that means.
    """
    numbers, missing = [], []
    at_death: Number | None = None
    try:
        for reply in ask(lay, limit):
            at_death = reply.number if isinstance(reply, AtDeath) else None
            if isinstance(reply, Took):
                numbers.append(reply.number)
            elif isinstance(reply, Gap):
                missing.append(reply.missing)
    except ProbeDied as death:
        if at_death is not None:
            return (*numbers, at_death), tuple(missing)
        missing.append(Missing("process" if numbers else ruler, lay.target, str(death)))
        if lay.save is not None:
            Path(lay.save).unlink(missing_ok=True)
    return tuple(numbers), tuple(missing)


@dataclass(frozen=True)
class Clock:
    """Times programs on an attached target whose executables lie in a folder, in sets that share rounds.

    ``again`` asks another process, in which one program of each set is compiled a second time.
    """

    suite: Suite
    target: Target
    folder: Path
    again: Ask
    sets: dict[tuple[str, str], list[Case]] = field(default_factory=dict)
    tried: list[Case] = field(default_factory=list)  # cases for whose sake programs are timed

    def add(self, group: Sequence[Case]) -> None:
        """Take on those of a group that were measured and can run.

        Of each set one baseline is compiled again, in another process. A set whose programs were not all timed in the
        same rounds begins again.
        """
        for key, members in _sets(self.suite, group).items():
            able = [case for case in members if self._path(case.id).exists() and self._known(case).correct]
            able = self._in_the_same_rounds(able)
            if all(self._known(case).timed for case in able):
                continue
            self.sets[key] = able
            baselines = [case for case in able if case.method == self.suite.study(case).baselines[0]]
            for case in baselines[-1:]:
                lay = Lay(case, self.target.name, (), save=str(self._path(case.id + AGAIN)))
                _answer(self.again, lay, self.suite.effort.limit_seconds, "compiler")

    def _in_the_same_rounds(self, able: list[Case]) -> list[Case]:
        """Those that go on together. One that killed the clock does not cost the others what they have, until they are
        done; otherwise all begin again.
        """
        begun = [case for case in able if self._known(case).seeds]
        if begun and not all(self._known(case).timed for case in begun):
            able = [case for case in able if self._known(case).seeds or not self._killed(case)]
        if len({self._known(case).seeds for case in able}) > 1:
            for case in able:
                self.suite.journal.put(self._known(case).without_clock())
        return able

    def _killed(self, case: Case) -> bool:
        return any(gap.ruler == "clock" for gap in self._known(case).missing)

    def run(self, study: str | None = None) -> None:
        """Time every set, or those of a study, in one more process, in random order."""
        chosen = [able for key, able in self.sets.items() if study in (None, key[0]) and not self._done(able)]
        if not chosen:
            return
        random.shuffle(chosen)
        process = 1 + max(len(self._known(able[0]).samples) for able in chosen)
        programs = f"{sum(map(len, chosen))} programs of {study or 'all studies'} on {self.target.name}"
        self.suite.say(f"{programs}, on the clock: process {process} of {self.suite.effort.processes}")
        with probes(self.target, self.suite.folders) as ask:
            for able in chosen:
                self._time(able, ask)

    def finish(self) -> None:
        """Note that one more run has tried these cases."""
        _count_tries(self.suite, self.tried, self.target)

    def _time(self, able: list[Case], ask: Ask) -> None:
        """Time a set in the rounds of one process, into the journal; a program that kills it is left out from then on.

        If nobody knows which it was, all start again, once.
        """
        effort, blameless = self.suite.effort, 0
        while not self._done(able):
            names = [name for case in able for name in (case.id, case.id + AGAIN) if self._path(name).exists()]
            programs, seed = {name: str(self._path(name)) for name in names}, random.randrange(2**32)
            request = Time(self.target.name, programs, effort.clock_seconds, effort.least_rounds, effort.rounds, seed)
            try:
                replies = list(ask(request, effort.limit_seconds * (1 + len(programs))))
            except ProbeDied as death:
                culprits = [case for case in able if death.running == case.id]
                if death.running.endswith(AGAIN):
                    self._path(death.running).unlink()
                elif culprits or blameless:
                    self._leave_out(able, culprits or list(able), str(death))
                else:
                    blameless += 1
                continue
            rounds = [reply.seconds for reply in replies if isinstance(reply, Round)]
            self._put(able, seed, {name: tuple(seconds[name] for seconds in rounds) for name in names})
            return

    def _leave_out(self, able: list[Case], culprits: Sequence[Case], reason: str) -> None:
        for case in culprits:
            able.remove(case)
            record = self._known(case).without_clock()
            self.suite.journal.put(
                replace(record, missing=(*record.missing, Missing("clock", self.target.name, reason)))
            )

    def _put(self, able: Sequence[Case], seed: int, seconds: Mapping[str, tuple[float, ...]]) -> None:
        """Add the seconds of a process to the records of a set, and what all processes say so far."""
        samples: dict[str, Samples] = {}
        for case in able:
            record = self._known(case)
            samples[case.id] = (*record.samples, seconds[case.id])
            if record.again or case.id + AGAIN in seconds:
                before = (*record.again, *[()] * (len(record.samples) - len(record.again)))
                samples[case.id + AGAIN] = (*before, seconds.get(case.id + AGAIN, ()))
        for case in able:
            record, rest = self._known(case), self._known(case).without_clock()
            numbers = (*rest.numbers, *_timed(case, samples, self.suite.study(case), self.target))
            again, seeds = samples.get(case.id + AGAIN, ()), (*record.seeds, seed)
            timed = replace(rest, numbers=numbers, samples=samples[case.id], again=again, seeds=seeds)
            self.suite.journal.put(timed)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _known(self, case: Case) -> Record:
        return self.suite.known(case, self.target)

    def _done(self, able: Sequence[Case]) -> bool:
        return all(self._known(case).timed for case in able)


@contextmanager
def clock_of(suite: Suite, target: Target, folder: Path | None = None) -> Iterator[Clock]:
    """A clock with a folder of its own, unless one is given."""
    with tempfile.TemporaryDirectory() as own, probes(target, suite.folders) as again:
        yield Clock(suite, target, folder or Path(own), again)


def _sets(suite: Suite, group: Iterable[Case]) -> dict[tuple[str, str], list[Case]]:
    """A group's cases by the rounds that they share."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in group:
        found.setdefault((case.study, suite.study(case).shares_rounds(case)), []).append(case)
    return found


def _compared_with(case: Case, study: Study) -> dict[str, Case]:
    """The cases over whose time this one's is given, by the name that the ratio carries."""
    variant_of = study.methods[case.method].variant_of
    names = (*study.baselines, *([variant_of] if variant_of else []))
    return {**{name: case.with_method(name) for name in names if name != case.method}, **study.against(case)}


def _timed(case: Case, samples: Mapping[str, Samples], study: Study, target: Target) -> list[Number]:
    """What the clock says of a case: its own seconds, and over those of what it is compared with."""
    compared = {name: other.id for name, other in _compared_with(case, study).items()}
    compared[case.method + AGAIN] = case.id + AGAIN
    others = {name: samples[key] for name, key in compared.items() if key in samples}
    return list(RULERS["clock"].take(Subject(case, study, target, seconds=samples[case.id], others=others)))
