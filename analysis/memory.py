"""Where rulers disagree about memory, and where recomputation saved none."""

from dataclasses import dataclass

from adcost.rulers import process
from analysis.view import View


def saved_nothing(view: View, margin: float = 0.05) -> list[tuple[str, int, float, str, float]]:
    """Methods that recompute, and yet the compiler plans no less memory for them than where nothing is recomputed.

    A method is compared with the plain one of its form: without a loop, or with one. Rows are (method, n, temp in
    activations, plain method, its temp), at the largest depth that both have; less than ``margin`` below counts as not
    less.
    """
    found = []
    for method in view.methods:
        plain = _plain(view, method)
        if plain is None:
            continue
        evaluations, temp, least = (
            view.series(method, "count", "evaluations"),
            view.planned(method),
            view.planned(plain),
        )
        depths = temp.index.intersection(evaluations.index).intersection(least.index)
        if len(depths) == 0:
            continue
        n = depths.max()
        if evaluations[n] > n and temp[n] > (1 - margin) * least[n]:
            found.append((method, int(n), float(temp[n]), plain, float(least[n])))
    return found


def _plain(view: View, method: str) -> str | None:
    """The first method, the study's baselines before others, that has a loop if this one has, and computes each layer
    once.
    """
    known = {name: traits for name in view.methods if (traits := view.traits(name)) and traits.differentiates}
    unrolled = {name: traits.form == "unrolled" for name, traits in known.items()}
    for name in dict.fromkeys([*view.told.get("baselines", ()), *unrolled]):
        counted = view.series(name, "count", "evaluations")
        if unrolled.get(name) == unrolled.get(method) and len(counted) and (counted == counted.index).all():
            return str(name)
    return None


RULERS_AGREE = 0.02  # relative: the process ruler's own error on programs whose truth is known


@dataclass(frozen=True)
class Apart:
    """What three rulers say of one program's memory, in bytes, and where they disagree, why."""

    method: str
    depth: int
    planned: float
    peak: float
    first: float
    sampled: float
    why: str


def rulers_apart(view: View, from_bytes: float = 64 * 2**20) -> list[Apart]:
    """The compiler's temp + outputs, the process's peak and memory-profiler's, where the plan is large enough."""
    rows = []
    for method in view.frame["method"].unique():
        planned = view.series(method, "compiler", "temp") + view.series(method, "compiler", "outputs")
        peaks = view.rows(method, "process", "peak")
        first = view.series(method, "process", "first peak").reindex(peaks.index)
        sampled = view.series(method, "process", "sampled peak").reindex(peaks.index)
        for n in planned.index.intersection(peaks.index):
            if planned[n] < from_bytes:
                continue
            peak, highest = float(peaks["value"][n]), float(max(first[n], peaks["value"][n]))
            rows.append(
                Apart(
                    str(method), int(n), float(planned[n]), peak, float(first[n]), float(sampled[n]),
                    _why_apart(float(planned[n]), peak, highest, float(sampled[n])),
                )
            )  # fmt: skip
    return rows


def _why_apart(planned: float, peak: float, highest: float, sampled: float) -> str:
    found = []
    if abs(peak - planned) > RULERS_AGREE * planned:
        found.append(f"the process holds {(peak - planned) / 2**20:+.1f} MiB beside the plan: unexplained")
    if sampled < highest - RULERS_AGREE * planned:
        found.append("memory-profiler is below the kernel's own mark: the peak was shorter than its interval")
    elif sampled > highest + RULERS_AGREE * planned:
        found.append("memory-profiler is above the kernel's own mark: unexplained")
    if highest - peak > RULERS_AGREE * planned:
        found.append(f"the first call takes {(highest - peak) / 2**20:.1f} MiB more, allocated once")
    return "; ".join(found)


def beside_the_plan(line: View, method: str, n: int) -> str:
    """What the process held at its peak beside plan and result, in MiB, as LAPACK's scratch; empty if not measured."""
    peak = line.series(method, "process", "peak")
    planned = line.series(method, "compiler", "temp") + line.series(method, "compiler", "outputs")
    if n not in peak.index or n not in planned.index:
        return ""
    low, high = (float(line.rows(method, "process", "peak")[column][n]) for column in ("low", "high"))
    if low <= planned[n] <= high:
        return "0 (within its error)"
    if abs(peak[n] - planned[n]) < process.RESOLUTION:
        return "below 1"
    return f"{(peak[n] - planned[n]) / 2**20:+.1f}"
