"""What the devices of a sharded program say to each other, by the user's line: ``plan(...).collectives``."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adcost.display import html_table, in_words, text_table
from adcost.peak import in_the_program, line_of, place
from adcost.targets.collectives import Communication
from adcost.targets.listing import Frame

HEADER = ("sent", "times", "collective", "of each", "among", "line", "operation")


@dataclass(frozen=True)
class Collective:
    """Equal collectives of one line.

    Attributes
    ----------
    kind
        ``all-gather``, ``all-reduce``, ``reduce-scatter``, ``all-to-all``, ``collective-permute``.
    times
        How often it runs in one run of the program, trips of loops included.
    size, sent
        Bytes, all in all: of the whole values, and of what one device sends by the algorithm that sends least.
    devices
        Among how many.
    shape
        Of what a device brings, with its type.
    operation
        As JAX names that for which it is.
    path
        The places from which that was called, innermost first.
    """

    kind: str
    times: float
    size: int
    sent: int
    devices: int
    shape: str
    operation: str
    path: tuple[Frame, ...] = ()

    @property
    def line(self) -> Frame | None:
        """The line of the program that caused it; None where the partitioner says none."""
        return line_of(self.path)

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        return {**asdict(self), "path": [frame._asdict() for frame in self.path]}

    @staticmethod
    def of_json(told: dict[str, Any]) -> "Collective":
        """What ``json`` wrote."""
        return Collective(**{**told, "path": tuple(Frame(**frame) for frame in told["path"])})


def collectives_of(said: Communication | None, lines: Iterable[Sequence[Frame]]) -> tuple[Collective, ...] | None:
    """The collectives of a program, equal ones together, those that send most first; None if they are not known."""
    if said is None:
        return ()
    if said.said is None:
        return None
    known = {frame for path in lines for frame in path}
    found: dict[Any, Collective] = {}
    for one in said.said:
        path = in_the_program(one["path"])
        path = path if known.issuperset(path[:1]) else ()
        key = one["kind"], one["devices"], one["shape"], path[:1]
        before = found.get(key)
        times, size, sent = (float(before.times), before.size, before.sent) if before else (0.0, 0, 0)
        found[key] = Collective(
            one["kind"],
            times + one["times"],
            size + round(one["times"] * one["size"]),
            sent + round(one["times"] * one["sent"]),
            one["devices"],
            one["shape"],
            before.operation if before else one["operation"],
            before.path if before else path,
        )
    return tuple(sorted(found.values(), key=lambda one: -one.sent))


def by_kind(said: Iterable[Collective]) -> dict[str, int]:
    """Bytes of the whole values, by the kind of collective."""
    found: dict[str, int] = {}
    for one in said:
        found[one.kind] = found.get(one.kind, 0) + one.size
    return found


def table(said: Sequence[Collective], most: int | None = None, html: bool = False) -> str:
    """The largest collectives as a table."""
    shown = said[:most]
    left = said[len(shown) :]
    below = [f"and {in_words(sum(one.sent for one in left))} in {len(left)} more"] if left else []
    title = "Sent by each device"
    return (html_table if html else text_table)(title, HEADER, map(_cells, shown), below)


def _cells(one: Collective) -> Sequence[str]:
    where = place(one.line) if one.line else "not told"
    name = one.operation.rpartition("/")[2]
    return in_words(one.sent), f"{one.times:g}", one.kind, one.shape, f"{one.devices}", where, name
