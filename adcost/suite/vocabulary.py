"""The vocabulary: a study asks a question, a method is a way to differentiate, a case is one cell of the table."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar

from adcost.checkpointing.schedules import Schedule
from adcost.targets import Target

Params = Mapping[str, int | str]
PROFILES = ("quick", "full")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """One cell: a study's method at one size. Hashable; the same identity in pytest, asv, JSON and figures."""

    study: str
    method: str
    params: tuple[tuple[str, int | str], ...]
    dtype: str = "float32"

    @property
    def size(self) -> str:
        """The cell's size in words, as in ``depth64-width64-batch1024-float32``; a word is ``family_ode``."""
        return "-".join([*(f"{name}{_joined(value)}" for name, value in self.params), self.dtype])

    @property
    def id(self) -> str:
        return f"{self.study}-{self.method}-{self.size}"

    def __getitem__(self, name: str) -> int:
        """A parameter that is a number."""
        return int(dict(self.params)[name])

    def word(self, name: str) -> str:
        """A parameter that is a word."""
        return str(dict(self.params)[name])

    def with_method(self, method: str) -> "Case":
        """The same size, by another method."""
        return Case(self.study, method, self.params, self.dtype)


def _joined(value: int | str) -> str:
    return f"_{value}" if isinstance(value, str) else str(value)


def once_a_size(make: Callable[[Case], Result]) -> Callable[[Case], Result]:
    """A function of a case that does not ask for its method, called once for all methods of a size.

    Methods then share their inputs themselves, and so a buffer on the device.
    """
    kept = lru_cache(maxsize=64)(make)
    return wraps(make)(lambda case: kept(case.with_method("")))


def case_from_id(text: str) -> Case:
    """The case with this ``id``.

    Raises
    ------
    ValueError
        If the text is no case's id.
    """
    match = re.fullmatch(r"(\w+)-(\w+)((?:-[a-z]+(?:\d+|_[a-z]+))*)-([a-z]+\d+)", text)
    if match is None:
        raise ValueError(f"{text!r} is no case; a case reads like backprop-sqrt-depth64-width32-batch1024-float32")
    params = re.findall(r"-([a-z]+)(?:(\d+)|_([a-z]+))", match[3])
    return Case(match[1], match[2], tuple((name, word or int(digits)) for name, digits, word in params), match[4])


class Interval(NamedTuple):
    """A value and the ends of its 95% interval, infinite where nothing bounds it."""

    value: float
    low: float
    high: float


Index = tuple[tuple[str, int], ...]  # as (("probes", 16),): which of the numbers of one quantity


@dataclass(frozen=True)
class Number:
    """One number that a ruler took; ``low`` and ``high`` bound its 95% interval where it has an error.

    ``quantity`` is a name. Where a case has several numbers of it, ``at`` says which one this is: after how many
    probes, at which step. ``between`` and ``within`` are standard deviations of a time's logarithm: of the medians of
    ``processes``, and of the rounds in one of them.
    """

    ruler: str
    target: str
    quantity: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    repeats: int = 1
    flags: tuple[str, ...] = ()
    at: Index = ()
    processes: int = 1
    between: float | None = None
    within: float | None = None


class NotMeasured(ValueError):
    """A number cannot be had, and that is foreseen; the reason in one line. Any other exception is a fault."""


@dataclass(frozen=True)
class Missing:
    """A number that could not be taken, and the reason in one line; ``fault``: an exception that nobody foresaw."""

    ruler: str
    target: str
    reason: str
    fault: bool = False


class Figure(NamedTuple):
    """What a program's result says: a quantity, its value, and its 95% interval where it has one."""

    quantity: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    repeats: int = 1
    at: Index = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """What a method at one size amounts to.

    Attributes
    ----------
    run, inputs
        ``run(*inputs())`` is what the rulers measure.
    loss
        The function that ``run`` differentiates, where there is one: its residuals are what reverse mode stores.
    facts
        Exact figures that are known beforehand, as name -> (value, unit).
    shapes
        The inputs' shapes and dtypes, without making them.
    checked
        Picks what the reference is held against out of the result.
    says
        Takes figures from the result, for the ruler ``estimate``.
    remark
        What it says of itself in words, where it was made for its target.
    """

    run: Callable[..., Any]
    inputs: Callable[[], tuple[Any, ...]]
    loss: Callable[..., Any] | None = None
    facts: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    shapes: Callable[[], tuple[Any, ...]] | None = None
    checked: Callable[[Any], Any] = lambda result: result
    says: Callable[[Any], Iterable[Figure]] | None = None
    remark: str = ""


@dataclass(frozen=True)
class Fit:
    """Will it fit? The parameter whose largest value is sought, and ``most(case)``, beyond which not to try.

    It is asked of the cases ``where`` it makes sense, with the other parameters of ``workload(case)``; ``precision`` is
    the share by which the value found may lie below the largest.
    """

    parameter: str
    workload: Callable[[Case], Params]
    most: Callable[[Case], int]
    where: Callable[[Case], bool] = lambda case: True
    precision: float = 0.0


@dataclass(frozen=True)
class Method:
    """A way to differentiate the study's workload, with its traits: nobody reads them off its name.

    Attributes
    ----------
    build
        The way itself; what it takes and returns is the study's own business.
    label
        What it is, for people.
    schedule
        The checkpointing schedule that it runs, by depth; None if it runs none of ours.
    form
        How it is written or what it gives, in a word of the study's: ``unrolled``, ``taped``, ``product``.
    needs
        What it asks of its inputs beyond what the study's other methods do: ``definite`` matrices.
    flags
        Settings of JAX under which it is traced and compiled, as ``{"jax_remat3": True}``.
    variant_of
        The method that it would be but for its flags: its time is given over that one's.
    limit, because
        The largest size at which its cost allows a case, and why there is one.
    compiles
        Is that cost the run's alone, so that the program still compiles beyond the limit?
    where
        Chooses among the study's sizes.
    jitted
        If not, it runs operation by operation, and no compiler plans it.
    extra
        The optional dependency that it needs, as (extra of pyproject.toml, module).
    differentiates
        If not, it is a yardstick: measured beside the others, and no gradient is asked of it.
    followed
        Is a claim about its growth?
    """

    build: Callable[..., Any]
    limit: Mapping[str, int] = field(default_factory=dict)
    because: str = ""
    label: str = ""
    schedule: Callable[[int], Schedule] | None = None
    form: str = ""
    needs: tuple[str, ...] = ()
    flags: Mapping[str, bool] = field(default_factory=dict)
    variant_of: str = ""
    compiles: bool = True
    where: Callable[[Case], bool] = lambda case: True
    jitted: bool = True
    extra: tuple[str, str] | None = None
    differentiates: bool = True
    followed: bool = False

    def __post_init__(self) -> None:
        if self.flags and not self.jitted:
            raise ValueError("flags are set while a method is compiled: one that has them must be jitted")


@dataclass(frozen=True)
class Study:
    """One question, its workload, its methods and its sizes.

    Attributes
    ----------
    name, question
        The file's name, and what is asked.
    methods, sizes
        Methods by name; the sizes of each profile, as parameters.
    program
        The program of a case.
    reference, tolerance
        Its result in float64, by code that it shares nothing with, and the relative error allowed, in the largest norm.
    baselines
        Methods over whose time that of the others is given; the first is compiled twice, and both are timed: A/A. None:
        no program of the study is timed.
    against
        Further cases of the same rounds over whose time a case's is given.
    together
        All methods of a size share rounds on the clock. Sizes that differ only in these parameters share them as well,
        and the analysis sees all sizes of the study at once and takes its own slices.
    in_turn
        Those of ``together`` whose sizes have rounds of their own: the largest would leave the small ones few rounds.
    evaluates
        The primitive that every evaluation of the workload's unit (a layer) runs exactly once.
    executions, executed
        Runs a case and counts how often the unit was really evaluated. Where a schedule tells the trips of its
        loops, they are held against such an execution at the sizes in ``executed``.
    matrix_products
        Are those of the compiled program counted too? Recomputation that the compiler removed is missing there.
    lines
        Are what is alive at the peak and its lines told one by one, and the memory over the program's time?
    fit
        How large a case may be, asked of compilers.
    compared
        The quick profile asks compilers of other devices for every size of the methods that claims follow, and for the
        others only at these sizes, if there are any.
    besides
        By profile, the only sizes at which methods are measured that no claim follows.
    unvaried
        The profiles that leave out methods' variants.
    dtypes
        Every case is measured in each.
    for_target
        The program of a case on a target, where that decides what it is.
    clusters
        By profile, the clusters on which it is measured as well, where their device is among the targets.
    """

    name: str
    question: str
    methods: Mapping[str, Method]
    sizes: Mapping[str, Sequence[Params]]
    program: Callable[[Case], Program]
    reference: Callable[[Case], Any]
    tolerance: Callable[[Case], float]
    baselines: tuple[str, ...]
    against: Callable[[Case], Mapping[str, Case]] = lambda case: {}
    together: tuple[str, ...] = ()
    in_turn: tuple[str, ...] = ()
    evaluates: str | None = None
    executions: Callable[[Case], int] | None = None
    executed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    matrix_products: bool = False
    lines: bool = False
    fit: Fit | None = None
    compared: Mapping[str, Sequence[int]] = field(default_factory=dict)
    besides: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    unvaried: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    for_target: Callable[[Case, Target], Program] | None = None
    clusters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def measured_on(self, target: Target) -> bool:
        """Is it one of the study's targets? A cluster is one where the study names it."""
        named = {name for names in self.clusters.values() for name in names}
        return target.devices == 1 or target.name in named

    def made(self, case: Case, target: Target) -> Program:
        """The program of a case on a target."""
        return self.program(case) if self.for_target is None else self.for_target(case, target)

    def cases(self, profile: str) -> Iterator[Case]:
        """Every case of a profile, size by size; a method is left out above its limit and where it is not asked for."""
        others = self.besides.get(profile, {})
        for params in self.sizes[profile]:
            for dtype in self.dtypes:
                for name, method in self.methods.items():
                    case = Case(self.name, name, tuple(params.items()), dtype)
                    left_out = method.variant_of and profile in self.unvaried
                    if not left_out and (method.followed or _among(case, others)) and self.affords(case):
                        yield case

    def ends(self) -> Iterator[Case]:
        """The last size of every method in every profile, of each kind that words tell apart."""
        for profile in PROFILES:
            last = {
                (case.method, case.dtype, *(v for _, v in case.params if isinstance(v, str))): case
                for case in self.cases(profile)
            }
            yield from last.values()

    def witnesses(self, case: Case) -> bool:
        """Is the case one whose evaluations are counted in an execution as well?"""
        return bool(self.executed) and _among(case, self.executed)

    def surveyed(self, case: Case) -> bool:
        """Is the case one that the quick profile compiles for other devices? Variants take minutes there."""
        method = self.methods[case.method]
        return not method.variant_of and (method.followed or _among(case, self.compared))

    def affords(self, case: Case) -> bool:
        """Is the case one that its method is asked for, and within its limit?"""
        method = self.methods[case.method]
        return method.where(case) and all(case[name] <= most for name, most in method.limit.items())

    def group(self, case: Case) -> str:
        """What cases have in common that are measured one after the other."""
        return _without(case, self.together).size

    def shares_rounds(self, case: Case) -> str:
        """What cases have in common that are timed in the same rounds."""
        return _without(case, set(self.together) - set(self.in_turn)).size


def _among(case: Case, sizes: Mapping[str, Sequence[int]]) -> bool:
    return all(dict(case.params).get(name) in values for name, values in sizes.items())


def _without(case: Case, params: Container[str]) -> Case:
    return replace(case, params=tuple(param for param in case.params if param[0] not in params))


def described(studies: Iterable[Study]) -> dict[str, Any]:
    """What a reader of results must know of studies, as plain JSON values: it stands in a result beside the numbers."""
    return {
        study.name: {
            "question": study.question,
            "baselines": list(study.baselines),
            "grid": bool(study.together),
            "methods": {
                name: {
                    "label": method.label,
                    "form": method.form,
                    "needs": list(method.needs),
                    "flags": list(method.flags),
                    "variant_of": method.variant_of,
                    "differentiates": method.differentiates,
                }
                for name, method in study.methods.items()
            },
        }
        for study in studies
    }
