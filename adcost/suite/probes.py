"""Processes in which rulers are laid, seen from the process that asks: it starts them, and survives their death."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from adcost.processes import how_it_ended, next_line
from adcost.suite.environment import undisturbed
from adcost.suite.messages import Done, Gap, Reply, Request, Took, Watch, decoded, encoded
from adcost.suite.vocabulary import Missing, Number
from adcost.targets import Target

SAMPLER = Path(__file__).parents[1] / "rulers" / "sampler.py"
PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from adcost.suite import probe; probe.main(*sys.argv[1:])"
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
    complete = {**undisturbed(), **UNCHECKED, **beside, "XLA_FLAGS": flags, "PYTHONUTF8": "1"}
    alive: list[Child] = []  # the probe and its sampler
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        note = Path(folder) / "note"
        # Not by -m: what lies in the folder that somebody works in is not to be imported, but this very adcost is.
        probe_command = ["-P", "-c", PROGRAM, str(Path(__file__).parents[2]), str(note), *map(str, folders)]

        def start(command: Sequence[str], stderr: IO[bytes] | int) -> Child:
            pipe = subprocess.PIPE
            child = subprocess.Popen(
                [sys.executable, *command],
                stdin=pipe,
                stdout=pipe,
                stderr=stderr,
                bufsize=0,
                env=complete,
                start_new_session=True,  # an interrupt is for this process; what a probe forks is of its group
            )
            alive.append(child)
            return child

        def watched(probe: Child) -> None:
            # By its path: as a module it would import this package, and with it JAX.
            start(["-P", str(SAMPLER), str(probe.pid)], subprocess.DEVNULL)

        def end() -> None:
            while alive:
                _end(alive.pop())

        def ask(request: Request, limit: float) -> Iterator[Reply]:
            if fresh or (alive and alive[0].poll() is not None):  # one that died while nobody asked has no answer
                end()
            if not alive:
                watched(start(probe_command, errors))
            probe = alive[0]
            said_before = os.fstat(errors.fileno()).st_size  # by other cases
            note.write_text("", encoding="utf-8")
            _send(probe, encoded(request))
            while True:
                line = next_line(probe.stdout, limit)
                reply = _understood(line)
                if reply is None:
                    before, _, running = note.read_text(encoding="utf-8").partition(" ")
                    said_before = max(said_before, int(before or 0))
                    reason = _bury(probe, limit if line is None else None, errors, said_before)
                    end()
                    raise ProbeDied(reason, running)
                if isinstance(reply, Done):
                    return
                if not isinstance(reply, Watch):
                    yield reply
                    continue
                if reply.begin and len(alive) == 1:
                    watched(probe)  # the last sampler died
                rise = _sampled(alive[1], limit) if len(alive) > 1 else b""
                if rise is None:
                    _end(alive.pop())
                _send(probe, b"\n")
                if rise is None:
                    yield Gap(Missing("process", request.target, "the sampler of memory ended, or gave no answer"))
                elif rise:
                    yield Took(Number("process", request.target, "sampled peak", "B", float(rise)))

        try:
            yield ask
        finally:
            end()


def _sampled(sampler: Child, limit: float) -> bytes | None:
    """Tell the sampler to begin, or to end: then it answers with the bytes by which memory rose. None: no answer."""
    _send(sampler, b"\n")
    line = next_line(sampler.stdout, limit)
    return line.strip() if line else None


def _end(child: Child) -> None:
    """Kill a process and what it forked."""
    with child:  # its pipes are closed
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()


def _understood(line: bytes | None) -> Any:
    """The reply of a line; None where there is no answer, or one that was cut short."""
    with suppress(ValueError):
        return decoded(line) if line else None
    return None


def _send(child: Child, line: bytes) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it died: the missing answer will tell
        child.stdin.write(line)


def _bury(probe: Child, late: float | None, errors: IO[bytes], said_before: int) -> str:
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
    errors.seek(said_before)
    return how_it_ended(code, errors.read())
