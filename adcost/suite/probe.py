"""The process in which rulers are laid: ``python -m adcost.suite.probe NOTE FOLDER...``, the folders being of studies.

Requests come in on standard input and replies go out on standard output, as ``adcost.suite.messages`` has them. Before
a program runs its name is written to the file NOTE, so that ``adcost.suite.probes``, which is the other end, knows whom
to blame should this process be killed.
"""

import gc
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

from adcost import _jax
from adcost.rulers import clock
from adcost.rulers.subject import Subject
from adcost.rulers.table import RULERS, Ruler
from adcost.suite.messages import (
    AGAIN,
    AtDeath,
    Device,
    Done,
    Find,
    Gap,
    Lay,
    Reply,
    Request,
    Round,
    Time,
    Took,
    Warm,
    Watch,
    decoded,
    encoded,
)
from adcost.suite.registry import Studies, load
from adcost.suite.vocabulary import Case, Method, Missing, NotMeasured, case_from_id
from adcost.targets import ANY, CORES, named

Note = Callable[[str], object]


def main(note: str, *folders: str) -> None:
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else prints must not get between the replies
    _volunteer_for_the_oom_killer()
    _keep_to_cores()
    studies = load(*map(Path, folders), say=_made)  # whoever asks has said already what is broken
    prepared = False
    for line in sys.stdin:
        request: Request = decoded(line)
        if not prepared and not isinstance(request, Find) and named(request.target).attached:
            _prepare()
            prepared = True
        for reply in _answers(request, studies, partial(_noted, Path(note))):
            replies.write(encoded(reply))
        replies.write(encoded(Done()))


def _noted(note: Path, name: str) -> None:
    """Write down what runs, and how much others have said on standard error before it."""
    note.write_text(f"{os.fstat(2).st_size} {name}", encoding="utf-8")


def _answers(request: Request, studies: Studies, note: Note) -> Iterator[Reply]:
    match request:
        case Lay():
            return lay(request, studies, note)
        case Time():
            return time_rounds(request, studies, note)
        case Find():
            return find(request)


def lay(request: Lay, studies: Studies, note: Note) -> Iterator[Reply]:
    """Lay rulers on one case, save its executable, reply with a number or a reason at a time."""
    case, target = request.case, named(request.target)
    note(case.id)
    subject = Subject(case, studies[case.study], target, request.runs)
    configure(case, subject.method)
    rulers = {name: RULERS[name] for name in request.rulers}
    if request.save is not None or any(ruler.laid != "search" for ruler in rulers.values()):
        try:
            _made(subject.program, subject.executable)
        except Exception as error:  # whatever a user's method raises costs this case alone
            yield _gap("compiler", target.name, error)
            return
    if request.save is not None:
        # Before the first run: after it, XLA on a CPU (JAX 0.10.2) no longer serializes programs that sort.
        try:
            _save(subject, Path(request.save))
        except Exception as error:  # one that calls back into Python cannot be
            yield Gap(Missing("clock", target.name, f"its executable cannot be saved to be timed: {error}"[:300]))
    for name, ruler in rulers.items():
        yield from _laid(name, ruler, subject)


def _laid(name: str, ruler: Ruler, subject: Subject) -> Iterator[Reply]:
    target = ANY if ruler.laid == "program" else subject.target.name
    try:
        if ruler.laid == "run":
            _made(subject.call)  # the inputs are there before anything is watched
    except Exception as error:
        yield _gap(name, target, error)
        return
    if ruler.watched:
        yield Watch(begin=True)
        sys.stdin.readline()  # the other end has begun
    if ruler.at_death is not None:
        yield AtDeath(ruler.at_death(subject))
    try:
        for number in ruler.take(subject):
            yield Took(number)
    except Exception as error:  # one ruler's failure must not cost the others their numbers
        yield _gap(name, target, error)
    if ruler.watched:
        yield Watch(begin=False)
        sys.stdin.readline()


def _made(*things: Any) -> None:
    """Nothing: a subject makes what is asked of it, and was asked for these."""


def find(request: Find) -> Iterator[Reply]:
    """Reply with the kind of the device that this process finds, or with the reason why it finds none."""
    try:
        yield Device(jax.devices()[0].device_kind)
    except RuntimeError as error:
        yield _gap("device", request.target, error)


def time_rounds(request: Time, studies: Studies, note: Note) -> Iterator[Reply]:
    """Time saved executables in interleaved rounds; reply with each round's seconds by name.

    Every program runs once to warm up; what that takes fixes how many rounds there will be.
    """
    programs: dict[str, Callable[[], Any]] = {}
    on_device: dict[str, Any] = {}  # programs that share an input share its buffer
    warming = 0.0
    for name, path in request.programs.items():
        note(name)
        case = case_from_id(name.removesuffix(AGAIN))
        set_precision(case)  # an executable is what its flags made it
        programs[name] = _loaded(Path(path), on_device, partial(_run_of, case, studies))
        warming += clock.seconds_of(programs[name])
        yield Warm(name)
    count = clock.rounds_within(request.budget, warming, request.least, request.most)
    gc.collect()
    gc.disable()
    for seconds in clock.rounds(programs, count, request.seed, note):
        yield Round(seconds)
    gc.enable()


def configure(case: Case, method: Method) -> None:
    """Set JAX up to trace and compile a case."""
    set_precision(case)
    _jax.set_flags(method.flags)


def set_precision(case: Case) -> None:
    """JAX makes every array of 32 bits unless told otherwise beforehand."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")


def _save(subject: Subject, path: Path) -> None:
    """Save an executable (of a program that is not jitted None) and its inputs: each array once, in a file beside it.

    Whoever times it need not trace the program again, nor compute what a backward pass is handed.
    """
    made = subject.executable
    executable = None if made is None else serialize_executable.serialize(made.compiled)
    inputs = jax.tree.map(partial(_put_aside, path.parent), subject.program.inputs())
    path.write_bytes(pickle.dumps((executable, inputs)))


def _put_aside(folder: Path, array: Any) -> str:
    """The name of the file that holds an array, made of its content."""
    content = np.asarray(array, order="C")
    words = f"{content.dtype} {content.shape} ".encode()
    name = f"array-{hashlib.sha256(words + content.tobytes()).hexdigest()}.npy"
    if not (folder / name).exists():
        part = folder / f"{name}.part.npy"
        np.save(part, content)
        part.replace(folder / name)  # one that was cut short has no name that anybody asks for
    return name


def _run_of(case: Case, studies: Studies) -> Callable[..., Any]:
    return studies[case.study].program(case).run


def _loaded(path: Path, on_device: dict[str, Any], run: Callable[[], Callable[..., Any]]) -> Callable[[], Any]:
    """A saved program with its inputs; ``run`` makes one that is not jitted."""
    executable, names = pickle.loads(path.read_bytes())
    program: Any = run() if executable is None else serialize_executable.deserialize_and_load(*executable)

    def placed(name: str) -> Any:
        if name not in on_device:
            on_device[name] = jax.device_put(np.load(path.parent / name))
        return on_device[name]

    inputs = jax.tree.map(placed, names)
    if executable is not None and jax.device_count() > 1:  # as it lies on the devices of a cluster
        inputs = jax.device_put(inputs, program.input_shardings[0])
    return lambda: jax.block_until_ready(program(*inputs))


def _gap(ruler: str, target: str, error: Exception) -> Gap:
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, NotMeasured):
        return Gap(Missing(ruler, target, first[:300]))
    fault = not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in first
    return Gap(Missing(ruler, target, f"{type(error).__name__}: {first}"[:300], fault))


def _prepare() -> None:
    """What a first execution adds once is not a program's."""
    jax.block_until_ready(jax.jit(lambda a: a @ a)(np.eye(256)))
    # Lowering finds LAPACK's routines for the process; a loaded executable that calls them would crash without.
    jax.jit(jax.lax.linalg.lu).lower(np.eye(1, dtype=np.float32))


def _keep_to_cores() -> None:
    """Run on as many cores as the target says; before JAX starts a thread for each."""
    if CORES in os.environ and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ[CORES])])


def _volunteer_for_the_oom_killer() -> None:
    with suppress(OSError):  # where there is no Linux, the system chooses whom to kill
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(*sys.argv[1:])
