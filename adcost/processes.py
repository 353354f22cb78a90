"""Other processes, seen from the one that asks them: what they answer, and how they ended."""

import selectors
import signal
from typing import IO, Any


def next_line(stream: IO[Any] | None, limit: float) -> Any:
    """The next line of a process's output; empty if that was closed, None if it took longer than ``limit`` seconds."""
    assert stream is not None
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return stream.readline() if selector.select(limit) else None


def how_it_ended(code: int, said: bytes) -> str:
    """A process's end in words, by its code and the last line that it wrote to its standard error."""
    last = "".join(said.decode(errors="replace").strip().splitlines()[-1:])
    if code == -signal.SIGKILL:
        return "was killed (signal 9), most likely for want of memory"
    how = f"ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with code {code}"
    return f"{how}: {last}"[:300].rstrip(": ")
