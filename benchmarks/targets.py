"""Where a ruler is laid: the device or compiler, and the environment that a process needs to reach it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A device, by name. Programs run on it and can be timed if it is ``attached``."""

    name: str
    attached: bool
    environment: Mapping[str, str] = field(default_factory=dict)


ANY = "any"  # the target of a number that no device has a part in: a count
TARGETS = {"cpu": Target("cpu", attached=True, environment={"JAX_PLATFORMS": "cpu"})}


def parse_targets(names: str) -> list[Target]:
    """The targets in a comma-separated list.

    Raises
    ------
    ValueError
        If a name is unknown; the message lists those that are known.
    """
    unknown = [name for name in names.split(",") if name not in TARGETS]
    if unknown:
        raise ValueError(f"unknown target {unknown[0]!r}; choose from: {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names.split(",")]
