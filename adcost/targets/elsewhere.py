"""Compiling in another process: one that was started with what the target needs, and stays to be asked again."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jax.sharding import AbstractMesh

from adcost import _jax
from adcost.processes import how_it_ended, next_line
from adcost.targets import Target
from adcost.targets.alive import Told
from adcost.targets.collectives import Communication
from adcost.targets.compiling import Planned

LIMIT = "ADCOST_COMPILER_SECONDS"  # the variable that says how long a compiler may take
SECONDS = 1800.0  # unless it does


class CompilerFailed(RuntimeError):
    """A compiler gave no plan; the message is its reason, in a line."""


@dataclass(frozen=True, eq=False)
class _Worker:
    process: subprocess.Popen[str]
    errors: IO[bytes]

    def end(self) -> None:
        self.process.kill()
        with suppress(BrokenPipeError), self.process, self.errors:  # what was asked last may still lie in the pipe
            pass


# By the target's name, and those that are at work; appending, popping and adding are atomic.
_idle: dict[str, list[_Worker]] = defaultdict(list)
_busy: set[_Worker] = set()


@contextmanager
def at_once(most: int = 4) -> Iterator[Callable[..., Future[Any]]]:
    """A function that calls others in threads with the settings of this one.

    What has not begun is dropped when this is left by an exception, as an interrupt, and busy compilers are ended.
    """
    pool = ThreadPoolExecutor(min(most, os.cpu_count() or 1))
    try:
        yield lambda f, *args: pool.submit(_jax.in_this_context(f), *args)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in [*_busy]:
            worker.end()
        raise
    pool.shutdown()


def planned_elsewhere(
    program: bytes, donated: Sequence[int], target: Target, mesh: AbstractMesh | None = None
) -> Planned:
    """What the compiler of a target plans for an exported program, which may be sharded over a mesh.

    Raises
    ------
    CompilerFailed
        If it refuses the program, or its process dies.
    """
    with tempfile.TemporaryDirectory() as folder, _worker(target) as worker:
        path = Path(folder) / "program"
        path.write_bytes(program)
        axes = mesh and [(*axis, kind.name) for axis, kind in zip(mesh.shape.items(), mesh.axis_types, strict=True)]
        reply = _asked(worker, {"program": str(path), "donated": list(donated), "axes": axes})
    if "error" in reply:
        raise CompilerFailed(reply["error"])
    said = reply["communication"]
    return Planned(reply["sizes"], Told(*reply["told"]), said and Communication(*said))


def environment(target: Target) -> dict[str, str]:
    """That of a process that compiles for a target; flags for XLA are added to the user's own."""
    flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), target.environment.get("XLA_FLAGS"))))
    # What is compiled already comes without reports of what is alive.
    return {**os.environ, **target.environment, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}


@contextmanager
def _worker(target: Target) -> Iterator[_Worker]:
    """An idle worker of the target that lives, or a new one; one that did not answer is not used again."""
    worker = next(filter(_lives, _popped(_idle[target.name])), None) or _started(target)
    _busy.add(worker)
    try:
        yield worker
    except BaseException:
        worker.end()
        raise
    finally:
        _busy.discard(worker)
    _idle[target.name].append(worker)


def _popped(workers: list[_Worker]) -> Iterator[_Worker]:
    with suppress(IndexError):
        while True:
            yield workers.pop()


def _lives(worker: _Worker) -> bool:
    if worker.process.poll() is not None:
        worker.end()
        return False
    return True


# Not by -m: what lies in the folder that the user works in is not to be imported, but this very adcost is.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from adcost.targets.worker import main; main(sys.argv[1])"


def _started(target: Target) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with its worker
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[2]), target.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(target),
        start_new_session=True,  # an interrupt is for the process that asks
    )
    return _Worker(process, errors)


def _asked(worker: _Worker, request: dict[str, Any]) -> dict[str, Any]:
    process, seconds = worker.process, limit()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        print(json.dumps(request), file=process.stdin, flush=True)
        line = next_line(process.stdout, seconds)
        if line is None:
            raise CompilerFailed(f"the compiler gave no plan within {seconds:.0f} s ({LIMIT} sets the limit)")
        return json.loads(line)
    except (BrokenPipeError, json.JSONDecodeError):
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        code = process.poll()
        worker.errors.seek(0)
        how = "closed its output" if code is None else how_it_ended(code, worker.errors.read())
        raise CompilerFailed(f"the compiler's process {how}") from None


def limit() -> float:
    """Seconds that a compiler may take for a program.

    Raises
    ------
    ValueError
        If the variable that says so holds no number.
    """
    said = os.environ.get(LIMIT, "")
    try:
        return float(said) if said else SECONDS
    except ValueError:
        raise ValueError(f"{LIMIT}={said!r}: give a number of seconds") from None


@atexit.register
def _end_all() -> None:
    for worker in [*_busy, *(worker for workers in _idle.values() for worker in workers)]:
        worker.end()
