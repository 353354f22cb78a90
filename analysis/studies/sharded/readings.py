"""What each device of a cluster holds, computes and sends, read off the results of the study ``sharded``."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from adcost.targets import device_of
from analysis.view import View, at

# The axes of the mesh by which a layout divides what goes from block to block. ``tensor`` divides what is inside a
# block by ``model`` besides.
CARRY = {"data": ("data",), "full": ("data",), "tensor": ("data",), "both": ("data", "model")}
DIVIDED = ("data", "full", "both")  # layouts that divide all activations alike
GATHERED = "full"  # the layout in which blocks gather their weights whole, and nothing else
SCHEDULES = ("sqrt", "binomial")
BESIDE_INPUT = "slots besides the input"
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Line:
    """A network in a layout on a cluster, by depth."""

    network: str
    layout: str
    view: View
    alone: View  # the same on one device of the cluster

    @property
    def at(self) -> str:
        return f"network={self.network}; layout={self.layout}"

    @cached_property
    def depths(self) -> list[int]:
        """The depths at which any method was compiled."""
        return sorted({n for method in self.view.methods for n in self.view.sizes(method, "compiler", "temp")})

    def shards(self, method: str, n: int) -> int | None:
        """Among how many devices the carry is divided."""
        sizes = [self.number(method, "collectives", f"{axis} axis", n) for axis in CARRY[self.layout]]
        return prod(int(size) for size in sizes if size) if all(sizes) else None

    def number(self, method: str, ruler: str, quantity: str, n: int) -> float | None:
        return at(self.view.series(method, ruler, quantity), n)

    def weights(self, method: str, n: int, quantity: str) -> float | None:
        """Bytes that each device has at hand by a kind of collective, in those of all weights; 0 if it has none."""
        sent, whole = self.number(method, "collectives", "sent", n), self.number(method, "told", "weights", n)
        return None if sent is None or not whole else (self.number(method, "collectives", quantity, n) or 0.0) / whole

    def passes(self, method: str, n: int) -> float | None:
        """Evaluations of a block, over the number of blocks."""
        found = self.number(method, "count", "evaluations", n)
        return None if found is None else found / n


def lines(view: View) -> Iterator[Line]:
    """Every network in every layout; none on one device alone."""
    frame = view.frame[view.frame["ruler"] == "compiler"]
    if view.devices > 1 and len(frame):
        alone = replace(view, target=device_of(view.target))
        for network, layout in frame[["network", "layout"]].drop_duplicates().itertuples(index=False):
            mine, one = (where.along("depth", network=network, layout=layout) for where in (view, alone))
            yield Line(str(network), str(layout), mine, one)
