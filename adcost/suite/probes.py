"""Processes in which rulers are laid, seen from the process that asks: it starts them, and survives their death."""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from adcost.suite.messages import Done, Lay, Reply, Request, Took, Watch, decoded, encoded
from adcost.suite.vocabulary import Number
from adcost.targets import Target

SAMPLER = Path(__file__).parents[1] / "rulers" / "sampler.py"
UNCHECKED = {"EQX_ON_ERROR": "off"}  # Equinox's checks call Python back: such a program could not be saved and timed
Child = subprocess.Popen[bytes]
Ask = Callable[[Request, float], Iterator[Reply]]


class ProbeDied(RuntimeError):
    """The probe's process ended before its answer; ``running`` is the program that ran."""

    def __init__(self, reason: str, running: str) -> None:
        super().__init__(reason)
        self.running = running


@contextmanager
def probes(
    target: Target, folders: Sequence[Path], environment: Mapping[str, str] | None = None, fresh: bool = False
) -> Iterator[Ask]:
    """A function that puts a request about a target to a probe, with so many seconds for each reply, and yields these.

    The probe knows the studies of the folders. It starts a new one after a death, or if ``fresh`` for every request.
    Flags for XLA are added to the user's own.
    """
    beside = {**target.environment, **(environment or {})}
    flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), beside.get("XLA_FLAGS"))))
    complete = {**os.environ, **UNCHECKED, **beside, "XLA_FLAGS": flags}
    alive: list[Child] = []  # the probe and its sampler
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        note = Path(folder) / "note"
        probe_command = ["-m", "adcost.suite.probe", str(note), *map(str, folders)]

        def start(command: Sequence[str], stderr: IO[bytes] | int) -> Child:
            pipe = subprocess.PIPE
            child = subprocess.Popen(
                [sys.executable, *command], stdin=pipe, stdout=pipe, stderr=stderr, bufsize=0, env=complete
            )
            alive.append(child)
            return child

        def end() -> None:
            for child in alive:
                with child:  # its pipes are closed
                    child.kill()
            alive.clear()

        def ask(request: Request, limit: float) -> Iterator[Reply]:
            if fresh or (alive and alive[0].poll() is not None):  # one that died while nobody asked has no answer
                end()
            if not alive:
                errors.seek(0)
                errors.truncate()
                probe = start(probe_command, errors)
                # By its path: as a module it would import this package, and with it JAX.
                start(["-P", str(SAMPLER), str(probe.pid)], subprocess.DEVNULL)
            probe, sampler = alive
            note.write_text("")
            _send(probe, encoded(request))
            while True:
                line = _line(probe, limit)
                reply = _understood(line)
                if reply is None:
                    reason = _bury(probe, limit if line is None else None, errors)
                    end()
                    raise ProbeDied(reason, note.read_text())
                if isinstance(reply, Done):
                    return
                if not isinstance(reply, Watch):
                    yield reply
                    continue
                rise = _sampled(sampler, limit)
                _send(probe, b"\n")
                if rise is not None and isinstance(request, Lay):
                    yield Took(Number("process", request.target, "sampled peak", "B", rise))

        try:
            yield ask
        finally:
            end()


def _sampled(sampler: Child, limit: float) -> float | None:
    """Tell the sampler to begin, or to end: then it answers with the bytes by which memory rose."""
    _send(sampler, b"\n")
    line = (_line(sampler, limit) or b"").strip()
    return float(line) if line else None


def _understood(line: bytes | None) -> Any:
    """The reply of a line; None where there is no answer, or one that was cut short."""
    with suppress(ValueError):
        return decoded(line) if line else None
    return None


def _send(child: Child, line: bytes) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it died: the missing answer will tell
        child.stdin.write(line)


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
