"""The claim of the study ``worked_example``, and the traces as the run recorded them."""

from collections.abc import Iterator
from math import cos

from adcost.evaluation_trace import Node
from analysis.rules import exact
from analysis.verdict import Claim, Test, within
from analysis.view import View

AT = (2.0, 5.0)
ROUNDED = 1e-6


def nodes(view: View) -> list[Node]:
    """The rows of the traces, in the order of evaluation; none where they were not recorded."""
    mine = view.noted(view.frame[view.frame["ruler"] == "estimate"])
    places = zip(mine["quantity"].map(str), mine["at"].map(str), strict=True)
    known = dict(zip(places, zip(mine["value"].map(float), mine["flags"].map(str), strict=True), strict=True))

    def each(quantity: str, begin: str) -> list[tuple[float, str]]:
        found: list[tuple[float, str]] = []
        while (place := (quantity, f"{begin}{len(found)}")) in known:
            found.append(known[place])
        return found

    def node(i: int, value: float, words: str) -> Node:
        name, expression = words.split("; ")
        operands = tuple((flags, d) for d, flags in each("local derivative", f"node={i}; operand="))
        tangents = tuple(tangent for tangent, _ in each("tangent", f"node={i}; input="))
        return Node(name, expression, operands, value, tangents, known["adjoint", f"node={i}"][0])

    return [node(i, *told) for i, told in enumerate(each("value", "node="))]


def by_hand() -> tuple[float, float]:
    """The derivatives with respect to x1 and x2: x2 + cos x1 and x1."""
    x1, x2 = AT
    return x2 + cos(x1), x1


def traces(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler evaluates nothing
    for i, hand in enumerate(by_hand()):
        for mode in ("forward", "reverse"):
            found = nodes(view)
            at, band = f"by=x{i + 1}", within(hand, ROUNDED, "rounding in float32")
            test = Test(mode, "estimate", "derivative", band, at=at, predicted=hand)
            if not found:
                yield test
                continue
            value = found[-1].tangents[i] if mode == "forward" else found[i].adjoint
            why = "The trace's last tangent." if mode == "forward" else "The adjoint of the input."
            yield Test(mode, "estimate", "derivative", band, exact(value), at, hand, why=f"{why} Predicted: by hand.")


CHAPTER = 0  # of the lecture
CLAIMS = [
    Claim(
        "worked-example",
        "worked_example",
        "f(x1, x2) = x1 x2 + sin x1 by hand, in both modes.",
        "df/dx1 = x2 + cos x1, df/dx2 = x1, from traces that are derived from the program",
        traces,
        ("worked-example",),
    ),
]
