"""What the suite and its probes say to each other: a message a line, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from adcost.suite.vocabulary import Case, Missing, Number

AGAIN = " again"  # after a case's id: the same program, compiled a second time

# Requests.


@dataclass(frozen=True)
class Lay:
    """Lay rulers on a case; its executable is saved where ``save`` says."""

    case: Case
    target: str
    rulers: tuple[str, ...]
    runs: int = 1
    save: str | None = None


@dataclass(frozen=True)
class Time:
    """Time saved executables, path by name, in interleaved rounds; a name is a case's id, or that and ``AGAIN``."""

    target: str
    programs: Mapping[str, str]
    budget: float  # seconds
    least: int  # rounds
    most: int
    seed: int


@dataclass(frozen=True)
class Find:
    """Is the target's device there?"""

    target: str


# Replies.


@dataclass(frozen=True)
class Took:
    """A number was taken."""

    number: Number


@dataclass(frozen=True)
class AtDeath:
    """What is known should this process die before its next reply."""

    number: Number


@dataclass(frozen=True)
class Gap:
    """A number could not be taken."""

    missing: Missing


@dataclass(frozen=True)
class Round:
    """Seconds of one round, by name."""

    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Warm:
    """A program is loaded and has run."""

    name: str


@dataclass(frozen=True)
class Device:
    """The kind of the device that was found."""

    kind: str


@dataclass(frozen=True)
class Watch:
    """Begin, or end, to sample this process from outside; it waits for an answer."""

    begin: bool


@dataclass(frozen=True)
class Done:
    """The last reply to a request."""


Request = Lay | Time | Find
Reply = Took | AtDeath | Gap | Round | Warm | Device | Watch | Done
KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Lay, Time, Find, Took, AtDeath, Gap, Round, Warm, Device, Watch, Done)
}


def encoded(message: Request | Reply) -> bytes:
    """The message as a line."""
    return json.dumps({"message": type(message).__name__, **asdict(message)}).encode() + b"\n"


def decoded(line: str | bytes) -> Any:
    """The message of a line.

    Raises
    ------
    ValueError
        If the line holds none, or was cut short.
    """
    try:
        fields = json.loads(line)
        return msgspec.convert(fields, KINDS[fields.pop("message")])
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError, msgspec.ValidationError):
        raise ValueError(f"{line!r} is no message") from None
