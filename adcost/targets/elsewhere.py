"""Compiling in another process: one that was started with what the target needs, and stays to be asked again."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adcost.targets import Target

KILLED = "the compiler's process was killed, most likely for want of memory"


class CompilerFailed(RuntimeError):
    """A compiler gave no plan; the message is its reason, in a line."""


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[str]
    errors: IO[bytes]

    def end(self) -> None:
        with self.process, self.errors:
            self.process.kill()


_idle: dict[str, list[_Worker]] = defaultdict(list)  # by the target's name; appending and popping are atomic


def planned_elsewhere(program: bytes, donated: Sequence[int], target: Target) -> dict[str, int]:
    """What the compiler of a target plans for an exported program, as ``planned_bytes`` has it.

    Raises
    ------
    CompilerFailed
        If it refuses the program, or its process dies.
    """
    with tempfile.TemporaryDirectory() as folder, _worker(target) as worker:
        path = Path(folder) / "program"
        path.write_bytes(program)
        reply = _asked(worker, {"program": str(path), "donated": list(donated)})
    if "error" in reply:
        raise CompilerFailed(reply["error"])
    return reply["planned"]


def environment(target: Target) -> dict[str, str]:
    """That of a process that compiles for a target; flags for XLA are added to the user's own."""
    flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), target.environment.get("XLA_FLAGS"))))
    return {**os.environ, **target.environment, "XLA_FLAGS": flags}


@contextmanager
def _worker(target: Target) -> Iterator[_Worker]:
    """An idle worker of the target, or a new one; one that did not answer is not used again."""
    worker = _idle[target.name].pop() if _idle[target.name] else _started(target)
    try:
        yield worker
    except BaseException:
        worker.end()
        raise
    _idle[target.name].append(worker)


def _started(target: Target) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with its worker
    process = subprocess.Popen(
        [sys.executable, "-m", "adcost.targets.worker", target.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(target),
        start_new_session=True,  # an interrupt is for the process that asks
    )
    return _Worker(process, errors)


def _asked(worker: _Worker, request: dict[str, Any]) -> dict[str, Any]:
    process = worker.process
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        print(json.dumps(request), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError):
        code = process.wait(10)
        worker.errors.seek(0)
        last = worker.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        said = KILLED if code == -signal.SIGKILL else f"the compiler's process ended with code {code}: {''.join(last)}"
        raise CompilerFailed(said[:300]) from None


@atexit.register
def _end_all() -> None:
    for workers in _idle.values():
        while workers:
            workers.pop().end()
