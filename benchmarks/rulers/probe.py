"""The fresh process in which rulers are laid: ``python -m benchmarks.rulers.probe``.

Requests come in on standard input and replies go out on standard output, one JSON object a line; the last reply to
a request is ``{"done": true}``. Before a program runs its name is written to the request's ``note`` file, so that the
parent knows whom to blame should this process be killed. ``benchmarks.recorder`` is the other end.
"""

import gc
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

from benchmarks.cases import Case, Missing, Number, Program, Study, case_from_id, case_from_json, studies
from benchmarks.rulers import clock, compiler, counts, device, process, program_text
from benchmarks.targets import ANY, CORES, TARGETS

Reply = dict[str, Any]


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not get between the replies
    _volunteer_for_the_oom_killer()
    _keep_to_cores()
    if sys.argv[1:] == ["run"]:  # what a first execution adds once is not a program's
        jax.block_until_ready(jax.jit(lambda a: a @ a)(np.eye(256)))
        # Lowering finds LAPACK's routines for the process; a loaded executable that calls them would crash without.
        jax.jit(jax.lax.linalg.lu).lower(np.eye(1, dtype=np.float32))
    for line in sys.stdin:
        request = json.loads(line)
        for reply in REQUESTS[request["do"]](request):
            print(json.dumps(reply), file=replies)
        print(json.dumps({"done": True}), file=replies)


def measure(request: Reply) -> Iterator[Reply]:
    """Lay ``request["rulers"]`` on one case, save its executable, reply with a number or a reason at a time."""
    case, target, rulers = case_from_json(request["case"]), TARGETS[request["target"]], request["rulers"]
    _note(request, case.id)
    study = studies()[case.study]
    _set_precision(case)
    try:
        program = study.program(case)
        compiled: Any = program.run
        numbers: list[Number] = []
        if study.methods[case.method].jitted:
            compiled, numbers = compiler.compile_program(program, target)
    except Exception as error:  # whatever a user's method raises costs this case alone
        yield _missing("compiler", target.name, error)
        return
    if "save" in request:
        # Before the first run: after it, XLA on a CPU no longer serializes programs that sort (Equinox's do).
        yield from _laid("clock", target.name, lambda: _saved(compiled, program, Path(request["save"])))
    if "compiler" in rulers:
        yield from _numbers(numbers)
        if study.matrix_products:
            yield from _laid("compiler", target.name, lambda: [_matrix_products(compiled, target.name)])
    if "count" in rulers:
        yield from _laid("count", ANY, lambda: _counted(study, case, program))
    if not target.attached:
        return
    inputs = jax.device_put(program.inputs())
    call = partial(compiled, *inputs)
    results: list[Any] = []
    if "device" in rulers:
        yield from _laid("device", target.name, lambda: _device_peak(call, target.name, results))
    if "process" in rulers:
        yield {"sampler": "start"}
        sys.stdin.readline()  # the parent has started
        yield from _laid("process", target.name, lambda: _peaks(call, request["runs"], target.name, results))
        yield {"sampler": "stop"}
        sys.stdin.readline()
    if "check" in rulers and program.says is not None:
        results = results or [call()]
        yield from _laid("estimate", target.name, lambda: _estimated(program, results[0], target.name))
    if "check" in rulers and study.methods[case.method].differentiates:
        yield from _laid(
            "check",
            target.name,
            lambda: [_checked(study, case, program.checked((results or [call()])[0]), target.name)],
        )


def attached(request: Reply) -> Iterator[Reply]:
    """Reply with the kind of the device that this process finds, or with the reason why it finds none."""
    try:
        yield {"device": jax.devices()[0].device_kind}
    except RuntimeError as error:
        yield _missing("device", request["target"], error)


def largest_fit(request: Reply) -> Iterator[Reply]:
    """Reply with the largest value of a parameter at which the case's program fits the target's memory.

    Found on the compiler.
    """
    case, target = case_from_json(request["case"]), TARGETS[request["target"]]
    fit = studies()[case.study].fit
    assert fit is not None
    assert target.memory is not None
    _note(request, case.id)
    _set_precision(case)
    study, memory, most = studies()[case.study], target.memory, request["most"]

    def total(n: int) -> int:
        sized = Case(case.study, case.method, ((fit.parameter, n), *case.params), case.dtype)
        program = study.program(sized)
        compiled = jax.jit(program.run).lower(*compiler.shapes(program, target)).compile()
        return compiler.plan(compiled, target)["total"]

    try:
        largest, needed = fitting(total, memory, most, fit.precision)
    except Exception as error:
        yield _missing("fit", target.name, error)
        return
    flags = ("not tried beyond",) if largest == most else ()
    quantity = f"largest {fit.parameter} that fits"
    yield from _numbers([Number("fit", target.name, quantity, "1", float(largest), flags=flags)])
    yield from _numbers([Number("fit", target.name, "memory needed there", "B", float(needed))])


CLOSE = 64  # of the values left, the part that is taken for close


def fitting(total: Callable[[int], int], memory: int, most: int, precision: float = 0.0) -> tuple[int, int]:
    """The largest n of 0 to ``most`` with ``total(n) <= memory``, and that total; ``total`` must not fall with n.

    In turn: where the straight line through the two known points says, close above that, and in the middle. Where the
    memory grows evenly the first two leave little between them; the third bounds the search where it does not. With a
    ``precision`` n may lie below the largest by that share.
    """
    low, at_low = 0, 0
    high, at_high = most, _total_or_too_much(total, most, memory)
    if at_high <= memory:
        return most, at_high
    turn = 0
    while high - low > max(1, precision * low):
        line = low + (high - low) * (memory - at_low) / (at_high - at_low)
        middle = (int(line), low + (high - low) // CLOSE, (low + high) // 2)[turn % 3]
        turn += 1
        middle = min(max(middle, low + 1), high - 1)
        needed = _total_or_too_much(total, middle, memory)
        if needed <= memory:
            low, at_low = middle, needed
        else:
            high, at_high = middle, needed
    return low, at_low


def _total_or_too_much(total: Callable[[int], int], n: int, memory: int) -> int:
    """A compiler that refuses a program for want of memory has said that it does not fit."""
    try:
        return total(n)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 2 * memory


def clock_group(request: Reply) -> Iterator[Reply]:
    """Time saved executables in interleaved rounds; reply with each round's seconds by the case's id.

    Sizes that have rounds of their own come one after the other, each with its own seconds.
    """
    programs: dict[str, Callable[[], Any]] = {}
    in_turn: dict[str, list[str]] = {}
    on_device: dict[int, tuple[Any, Any]] = {}  # methods that share an input share its buffer
    for name, path in request["programs"].items():
        _note(request, name)
        case = case_from_id(name)
        _set_precision(case)
        program = studies()[case.study].program(case)
        inputs = [on_device.setdefault(id(a), (a, jax.device_put(a)))[1] for a in program.inputs()]
        programs[name] = partial(_run, _loaded(program, Path(path)), inputs)
        programs[name]()
        in_turn.setdefault(studies()[case.study].shares_rounds(case), []).append(name)
        yield {"warm": name}
    gc.disable()
    budget, least, most, seed = request["budget"], request["least"], request["most"], request["seed"]
    for names in in_turn.values():
        sharing = {name: programs[name] for name in names}
        sharing |= {name + AGAIN: programs[name] for name in request["again"] if name in names}
        for seconds in clock.rounds(sharing, budget, least, most, seed, partial(_note, request)):
            yield {"round": seconds}


AGAIN = " again"  # the second timing of the same executable in a round
REQUESTS = {"measure": measure, "time": clock_group, "attached": attached, "fit": largest_fit}


def _run(compiled: Any, inputs: Sequence[Any]) -> Any:
    return jax.block_until_ready(compiled(*inputs))


def _counted(study: Study, case: Case, program: Program) -> list[Number]:
    def number(quantity: str, unit: str, value: float, *flags: str) -> Number:
        return Number("count", ANY, quantity, unit, float(value), flags=flags)

    arguments = compiler.shapes(program)
    numbers = [number(quantity, unit, value) for quantity, (value, unit) in program.facts.items()]
    if program.loss is not None:
        numbers.append(number("residuals", "B", counts.residual_bytes(program.loss, *arguments)))
    try:
        counted = counts.count(program.run, *arguments, loops=program.loops)
    except counts.DynamicTripCount:
        if study.executions is not None:
            numbers.append(number("evaluations", "evaluations", study.executions(case), "counted while it ran"))
        return numbers
    flags = ("trip counts from the schedule",) if program.loops else ()
    numbers.append(number("flops", "flop", counted[counts.FLOPS], *flags))
    if study.matrix_products:
        numbers.append(number("matrix products", "products", counted["dot_general"], *flags))
    if study.evaluates is not None:
        numbers.append(number("evaluations", "evaluations", counted[study.evaluates], *flags))
    if program.loops and study.executions is not None and study.witnesses(case):
        numbers.append(number("executed evaluations", "evaluations", study.executions(case), "counted while it ran"))
    return numbers


def _checked(study: Study, case: Case, result: Any, target: str) -> Number:
    expected = jax.tree.leaves(study.reference(case))
    errors = [
        np.max(np.abs(np.asarray(a, np.float64) - b)) / max(np.max(np.abs(b)), np.finfo(np.float64).tiny)
        for a, b in zip(jax.tree.leaves(result), expected, strict=True)
    ]
    error = float(np.max(errors))  # NaN in any leaf is NaN here; Python's max would lose it
    allowed = study.tolerance(case)
    if not (error <= allowed or allowed == inf):  # where any error is allowed, NaN is one
        raise ValueError(f"its result is off by {error:.1e} relative, more than the {allowed:.0e} allowed")
    return Number("check", target, "gradient error", "1", error)


def _estimated(program: Program, result: Any, target: str) -> list[Number]:
    assert program.says is not None
    return [
        Number("estimate", target, quantity, unit, float(value), low, high, repeats)
        for quantity, unit, value, low, high, repeats in program.says(np.asarray(result))
    ]


def _peaks(call: Callable[[], Any], runs: int, target: str, results: list[Any]) -> list[Number]:
    peaks, result = process.resident_peaks(call, runs)
    results.append(result)
    repeats = 1 if peaks.first < process.RESOLUTION else runs
    return [
        Number("process", target, "peak", "B", peaks.value, peaks.low, peaks.high, repeats),
        Number("process", target, "first peak", "B", peaks.first),
    ]


def _device_peak(call: Callable[[], Any], target: str, results: list[Any]) -> list[Number]:
    peak, result = device.device_peak(call, jax.devices()[0], target)
    results.append(result)
    return [peak]


def _matrix_products(compiled: Any, target: str) -> Number:
    return Number(
        "compiler", target, "matrix products", "products", float(program_text.matrix_products(compiled.as_text()))
    )


def _laid(ruler: str, target: str, take: Callable[[], list[Number]]) -> Iterator[Reply]:
    try:
        yield from _numbers(take())
    except Exception as error:  # one ruler's failure must not cost the others their numbers
        yield _missing(ruler, target, error)


def _saved(compiled: Any, program: Program, path: Path) -> list[Number]:
    """Save an executable; of a program that is not jitted an empty file, for there is nothing to save."""
    path.write_bytes(b"" if compiled is program.run else pickle.dumps(serialize_executable.serialize(compiled)))
    return []


def _loaded(program: Program, path: Path) -> Callable[..., Any]:
    content = path.read_bytes()
    return serialize_executable.deserialize_and_load(*pickle.loads(content)) if content else program.run


def _set_precision(case: Case) -> None:
    """JAX makes every array of 32 bits unless told otherwise beforehand."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")


def _numbers(numbers: list[Number]) -> Iterator[Reply]:
    for number in numbers:
        yield {"number": asdict(number)}


def _missing(ruler: str, target: str, error: Exception) -> Reply:
    first = (str(error).strip().splitlines() or [""])[0]
    return {"missing": asdict(Missing(ruler, target, f"{type(error).__name__}: {first}"[:300]))}


def _note(request: Reply, name: str) -> None:
    Path(request["note"]).write_text(name)


def _keep_to_cores() -> None:
    """Run on as many cores as the target says; before JAX starts a thread for each."""
    if CORES in os.environ and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ[CORES])])


def _volunteer_for_the_oom_killer() -> None:
    with suppress(OSError):  # where there is no Linux, the system chooses whom to kill
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
