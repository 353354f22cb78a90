"""Claims about what holds the memory: of the lecture's chain, and of every program of the suite."""

from collections.abc import Iterator

from analysis.lines import rows
from analysis.rules import exact
from analysis.studies.residuals.readings import STORED, predicted
from analysis.verdict import EVERY, Band, Cause, Claim, Test, at_least, at_most
from analysis.view import View

PLATFORMS = ("cpu", "cuda")  # a TPU's compiler tells a part, which the study's table says
AGREE = 0.02  # how far the rows may be from the plan
SHARE = 0.95  # of the bytes, arguments aside, that have a line
BESIDES = 7.0  # activations that lie there besides: one or two each of a carry, a cotangent, a product
DERIVATIVES = Cause(
    "measured",
    "JAX keeps what each operation's derivative reads: of tanh its result and what its derivative is made of, besides "
    "the activation that goes into the next product. The rows name them.",
    "above",
)
ORDER = Cause(
    "measured",
    "The compiler's order: it computes again before the backward pass, or puts the products of the weights' gradients "
    "off, and what they read waits. The rows name it, and the memory over time shows it.",
    "above",
)


def lines_are_the_plan(view: View) -> Iterator[Test]:
    """Of every program that plans a MiB or more."""
    if view.platform not in PLATFORMS:
        return
    frame = view.frame[view.frame["ruler"] == "lines"]
    told, lined = (frame[frame["quantity"] == quantity] for quantity in ("told / plan", "with a line"))
    if not len(told):
        return
    apart = (told["value"] - 1).abs()
    view.noted(told)
    yield Test(
        str(told["method"].iloc[int(apart.to_numpy().argmax())]),
        "lines",
        "largest distance of the rows' sum from the plan, relative",
        at_most(AGREE, "what the compiler tells is what it plans"),
        exact(float(apart.max()), len(told)),
        why=f"Of {len(told)} programs.",
        linear=True,
    )
    if not len(lined):
        return
    view.noted(lined)
    yield Test(
        str(lined["method"].iloc[int(lined["value"].to_numpy().argmin())]),
        "lines",
        "smallest share of the bytes with a line, arguments aside",
        at_least(SHARE, "what the compiler makes for itself is small"),
        exact(float(lined["value"].min()), len(lined)),
        why=f"Of {len(lined)} programs.",
        linear=True,
    )


def stored(view: View) -> Iterator[Test]:
    """What the rows hold of activations, against what the lecture stores."""
    for method in view.methods:
        for n in view.sizes(method, "lines", "told / plan"):
            unit = view.series(method, "count", "activation").get(n)
            many = predicted(view, n).get(method)
            if unit is None or many is None:
                continue
            held = sum(row.size for row in rows(view, method, n) if row.what in STORED and row.each >= unit / 2) / unit
            why = f"{many:g} by the account of what is stored, and up to {BESIDES:g} that lie there besides"
            yield Test(
                method,
                "lines",
                "activations held at the peak",
                Band(many - 1, many + BESIDES, why),
                exact(float(held), 1),
                f"n={n}",
                many,
                why=_largest(view, method, n, float(unit)),
                cause=_cause(view, method),
                linear=True,
            )


def _cause(view: View, method: str) -> Cause | None:
    """Why there is more than was said; of schedules it is not known."""
    traits = view.traits(method)
    if traits is not None and traits.form == "unrolled":
        return ORDER
    return None if len(view.series(method, "count", "slots")) else DERIVATIVES


def _largest(view: View, method: str, n: int, unit: float) -> str:
    """The largest rows in words."""
    largest = [row for row in rows(view, method, n)[:3] if row.what in STORED]
    said = [f"{row.size / unit:.0f} {row.what}, {row.where}: {row.operation}" for row in largest]
    return f"{'; '.join(said)}."


CHAPTER = 6  # of the lecture
CLAIMS = [
    Claim(
        "activations-stored",
        "residuals",
        "Vanilla backprop stores all activations f; checkpointing stores some, and computes the others again.",
        "n activations; with a schedule its slots; with segments of sqrt(n) layers about 2 sqrt(n)",
        stored,
        ("held", "over_time"),
    ),
    Claim(
        "lines-are-the-plan",
        EVERY,
        "(Beyond the lecture) What a compiler tells of the peak, line by line, is what it plans.",
        f"the rows within {AGREE:.0%} of the plan, {SHARE:.0%} of the bytes with a line, in programs of 1 MiB or more",
        lines_are_the_plan,
    ),
]
