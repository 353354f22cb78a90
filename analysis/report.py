"""The report: one HTML file that opens from disk, the verdicts as JSON, the frame as CSV, the figures as SVG."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import devices, memory, noise, overview, studies, variants
from analysis.frame import Results
from analysis.studies import CLAIMS
from analysis.style import Drawn, Table, svg
from analysis.verdict import EXPONENT_MARGIN, RATIO_MARGIN, Verdict, by_chance, counted
from analysis.versions import compared, in_brief
from analysis.view import View, differences, plainly
from analysis.view import views as all_views
from analysis.whole_folder import whole_folder

TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}  # whatever a message holds, and wherever it is written
CELL, ROW = 24, 13  # pixels of the animations
MARKS = {"confirmed": "✓", "refuted": "✗", overview.BY_CHANCE: "(✗)", "inconclusive": "?", "not measured": "–"}


def write(results: Results, folder: Path) -> Iterator[str]:
    """Write the report into a folder, whole or not at all, and say what was written.

    ``index.html``, ``verdicts.json``, ``frame.csv``, ``summary.md`` (its tables) and ``figures/*.svg``.

    Raises
    ------
    OSError
        If it cannot be written there; in one line.
    """
    with whole_folder(folder) as new:
        said = list(_written(results, new))
    yield from said
    yield f"report: {folder / 'index.html'}"


def _written(results: Results, folder: Path) -> Iterator[str]:
    """Write all files of the report into a new folder; what is to be said of it, line by line."""
    (folder / "figures").mkdir()
    verdicts = studies.verdicts(results)
    (folder / "verdicts.json").write_text(
        json.dumps([as_json(verdict) for verdict in verdicts], indent=1, ensure_ascii=False), **TEXT
    )
    results.frame.to_csv(folder / "frame.csv", index=False, **TEXT)
    views = all_views(results)
    sections = [_study(view, views, folder) for view in views]
    groups = _alike(views)
    first = {group[0].study: group for group in reversed(groups)}  # what fits is said of a study once
    fits = [devices.largest_fits(results, group[0].study) if group is first[group[0].study] else [] for group in groups]
    across = [found for pair in zip(groups, fits, strict=True) if (found := _across(*pair, folder)) is not None]
    versions, changed = compared(results)
    against, spread = noise.against_itself(results.timings), noise.spread(results.frame, results.timings)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=number, interval=interval, band=band, kind=overview.on_the_first_screen)
    page = environment.get_template("report.html").render(
        counts=overview.counted(verdicts),
        chance=by_chance(verdicts),
        against=against,
        spread=spread,
        timed=len(results.timings) > 0,
        overview=overview.lines(verdicts, CLAIMS),
        overview_targets=overview.targets(verdicts),
        not_here=list(dict.fromkeys(view.target for view in views if not view.attached)),
        advice=studies.advice(results),
        verdicts=verdicts,
        claims=[claim for claim in CLAIMS if any(v.claim == claim.id for v in verdicts)],
        marks=MARKS,
        studies=sections,
        missing=_missing(results.missing, list(dict.fromkeys(view.sweep for view in views))),
        faults=_missing(_faults(results.missing), []),
        refused=results.refused,
        left_out=[line for environment in results.environments.values() for line in environment.get("left_out", ())],
        were=_were,
        plan=_plan(results),
        environments=results.environments,
        across=across,
        versions=versions,
        changed=changed,
        changed_in_brief=in_brief(versions, changed),
        provenance=list(dict.fromkeys(map(_provenance, results.environments.values()))),
        animations=[
            found for study in dict.fromkeys(v.study for v in views) for found in studies.drawn(study, "animations")
        ],
        cell_size=CELL,
        row_size=ROW,
        exponent_margin=EXPONENT_MARGIN,
        ratio_margin=RATIO_MARGIN,
        rulers_agree=memory.RULERS_AGREE,
    )
    (folder / "index.html").write_text(page, **TEXT)
    tables = [_markdown(study) for study in sections if study["attached"] and study["table"] and study["baselines"]]
    tables += [table for found in across for table in _markdown_across(found)]
    tables += [_markdown_table(table) for study in sections for table in study["tables"]]
    (folder / "summary.md").write_text("\n\n".join(tables) + "\n", **TEXT)
    counts = ", ".join(f"{count} {kind}" for kind, count in counted(verdicts).items())
    yield f"{len(verdicts)} verdicts: {counts}"
    if against is not None:
        chance = f"{against.by_chance:.0f} by chance"
        yield f"A/A: {against.excluding} of {against.sets} programs differ from themselves ({chance})"
    if spread is not None:
        yield f"noise: {spread.between:.1%} between processes, {spread.within:.1%} within one"
    if results.refused:
        yield f"{_were(len(results.refused), 'record')} refused; the first: {results.refused[0]}"


def _plan(results: Results) -> tuple[int, list[str]]:
    """How many cases the runs were to measure, as far as they tell, and those of which the files say nothing at all."""
    planned = {case for environment in results.environments.values() for case in environment.get("plan", ())}
    return len(planned), sorted(planned - set(results.cases))


def _were(count: int, what: str) -> str:
    return f"1 {what} was" if count == 1 else f"{count} {what}s were"


def _provenance(environment: Mapping[str, Any]) -> str:
    """Where numbers come from, in a line."""
    names = {"jax": "JAX", "jaxlib": "jaxlib", "python": "Python", "commit": "commit", "profile": "profile"}
    known = [f"{word} {environment[name]}" for name, word in names.items() if environment.get(name)]
    return ", ".join([*known, *(str(environment[name]) for name in ("started", "cpu") if environment.get(name))])


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: ``digits`` significant ones, integers whole, nothing for nothing."""
    if value is None or not isfinite(value):
        return "" if value is None else "NaN" if value != value else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


def band(verdict: Verdict) -> str:
    """What the claim allows; nothing of one side alone, and of what must be equal."""
    ends = verdict.band_low, verdict.band_high
    if ends[0] is None or ends[1] is None or ends[0] == ends[1] or not (isfinite(ends[0]) and isfinite(ends[1])):
        return ""
    return f"[{number(ends[0], 3)}, {number(ends[1], 3)}]"


def interval(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        return ""
    if verdict.low == verdict.high or verdict.measured != verdict.measured:
        return "exact"
    return f"[{number(verdict.low, 3)}, {number(verdict.high, 3)}]"


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict's fields as JSON can hold them: NumPy's numbers as Python's, what is not finite as a word."""

    def plain(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        return str(value) if isinstance(value, float) and not isfinite(value) else value

    return {name: plain(value) for name, value in asdict(verdict).items()}


def _study(view: View, views: Sequence[View], folder: Path) -> dict[str, Any]:
    drawn = studies.drawn(view.study, "figures", view)
    words = "-".join(f"{name}{plainly(value)}" for name, value in view.workload)
    same = [other for other in views if (other.study, other.workload) == (view.study, view.workload)]
    if view != same[0]:  # the first has the plain name
        words += f"-{view.target}" if view.target != same[0].target else f"-{same.index(view) + 1}"
    pictures = []
    for figure in drawn:
        picture = svg(figure.figure)
        name = "-".join(filter(None, (view.study, figure.name, words.strip("-"))))
        (folder / "figures" / f"{name}.svg").write_text(picture, **TEXT)
        pictures.append({"drawn": figure, "svg": Markup(picture), "id": f"figure-{name}"})
    grid = view.grid  # what such a study says is in its own tables
    return {
        "name": view.study,
        "workload": ", ".join(f"{name} {plainly(value)}" for name, value in view.workload),
        "apart_from_others": differences(view, views),
        "target": view.target,
        "attached": view.attached,
        "plan": view.plan,
        "question": view.told.get("question", ""),
        "baselines": _baselines(view),
        "figures": pictures,
        "saved_nothing": [] if grid else memory.saved_nothing(view),
        "apart": [] if grid else memory.rulers_apart(view),
        "table": [] if grid else _table(view),
        "tables": [*studies.drawn(view.study, "tables", view), *filter(None, [variants.table(view)])],
        "notes": studies.drawn(view.study, "notes"),
    }


def _table(view: View) -> list[dict[str, Any]]:
    """Every method at its largest depth that vanilla shares, with the numbers people ask for."""
    rows = []
    for method in view.frame["method"].unique():
        temp = view.planned(method)
        if len(temp) == 0:
            continue
        n = temp.index[-1]
        row: dict[str, Any] = {"method": method, "n": n, "temp": temp[n]}
        for name, ruler, quantity in (
            ("slots", "count", "slots"),
            ("flops", "count", "flops"),
            ("evaluations", "count", "evaluations"),
            ("executed", "count", "executed evaluations"),
            ("time", "clock", "time"),
            ("compile", "compile", "compile time"),
            ("error", "check", "gradient error"),
        ):
            row[name] = view.series(method, ruler, quantity).get(n)
        peak = view.activations(method, view.peak_ruler, "peak")
        row["peak"] = peak.get(n)
        row["residuals"] = view.activations(method, "count", "residuals").get(n)
        row["ratios"] = []
        for baseline in _baselines(view):
            ratio = view.rows(method, "clock", f"time / {baseline}")
            row["ratios"].append(tuple(ratio.loc[n, ["value", "low", "high"]]) if n in ratio.index else None)
        rows.append(row)
    return rows


def _baselines(view: View) -> list[str]:
    """The study's first two baselines: those that a reader compares with."""
    return list(view.told.get("baselines", ()))[:2]


def _alike(views: Sequence[View]) -> list[list[View]]:
    """The views in groups that differ by target alone, or also by the version of JAX."""
    groups: dict[Any, list[View]] = {}
    for view in views:
        origin = [fact for fact in view.origin if fact[0] == "dtype" or not studies.across_versions(view.study)]
        groups.setdefault((view.study, view.workload, *origin), []).append(view)
    return list(groups.values())


def _across(views: Sequence[View], fits: Sequence[devices.Fits], folder: Path) -> dict[str, Any] | None:
    """What is said of several targets at once; None of one target alone."""
    views = [view for view in views if (view.frame["ruler"] == "compiler").any()]
    if not views:
        return None
    shown = []
    for found in studies.drawn(views[0].study, "across", views):
        if isinstance(found, Drawn):
            picture = svg(found.figure)
            (folder / "figures" / f"{views[0].study}-{found.name}.svg").write_text(picture, **TEXT)
            shown.append({"drawn": found, "svg": Markup(picture), "id": f"figure-{views[0].study}-{found.name}"})
        else:
            shown.append({"table": found})
    if len(views) < 2 and not fits and not shown:
        return None
    return {
        "study": views[0].study,
        "targets": [view.target for view in views],
        "planned": devices.by_target(views) if len(views) > 1 and not views[0].grid else [],
        "seconds": devices.compile_seconds(views),
        "fits": fits,
        "shown": shown,
        "not_here": [view.target for view in views if not view.attached],
    }


def _markdown(study: dict[str, Any]) -> str:
    """The table of methods in Markdown, for a README."""
    baseline = study["baselines"][0]
    lines = [
        f"| method | n | planned memory (activations) | layer evaluations | time / {baseline} ({study['workload']}) |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in study["table"]:
        found = row["ratios"][0]
        missing = "1" if row["method"] == baseline else "not measured"
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*found) if found else missing
        cells = (f"`{row['method']}`", row["n"], f"{row['temp']:.1f}", number(row["evaluations"]), ratio)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _markdown_across(across: dict[str, Any]) -> list[str]:
    """Planned memory by target, the largest sizes that fit and what became of recomputation, in Markdown."""
    targets = across["targets"]
    tables = [_markdown_table(shown["table"]) for shown in across["shown"] if "table" in shown]
    if across["planned"] and len(targets) > 1:
        head = f"| planned memory (activations) | n | {' | '.join(targets)} |"
        lines = [head, "|---|--:|" + "--:|" * len(targets)]
        for row in across["planned"]:
            values = ["" if value is None else f"{value:.1f}" for value in row.planned]
            lines.append(f"| `{row.method}` | {row.depth} | {' | '.join(values)} |")
        tables.append("\n".join(lines))
    for fits in across["fits"]:
        head = f"| largest {fits.parameter} that fits ({fits.workload}) | {' | '.join(fits.targets)} |"
        lines = [head, "|---|" + "--:|" * len(fits.targets)]
        for method, largest in fits.rows:
            values = ["" if found is None else f"{'≥ ' if found[1] else ''}{found[0]}" for found in largest]
            lines.append(f"| `{method}` | {' | '.join(values)} |")
        tables.append("\n".join(lines))
    return tables


def _markdown_table(table: Table) -> str:
    """A study's own table in Markdown; numbers stand right."""
    right = [all(row[i][:1] in "0123456789-+.−≥" for row in table.rows) for i in range(len(table.head))]
    lines = [table.head, ["--:" if numbers else "---" for numbers in right], *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _faults(missing: pd.DataFrame) -> pd.DataFrame:
    """The rows that are exceptions which nobody foresaw; older results do not tell."""
    return missing[missing["fault"].eq(True)] if "fault" in missing else missing[:0]


def _missing(missing: pd.DataFrame, sweeps: Sequence[str]) -> list[dict[str, Any]]:
    """What could not be measured, one line for each method and reason."""
    if len(missing) == 0:
        return []
    sizes = [name for name in sweeps if name in missing]
    groups = missing.groupby(["study", "method", "ruler", "target", "reason"])
    return [
        {**dict(zip(("study", "method", "ruler", "target", "reason"), key, strict=True)), "cases": _sizes(group, sizes)}
        for key, group in groups
    ]


def _sizes(group: pd.DataFrame, names: list[str]) -> str:
    values = {name: sorted({v if isinstance(v, str) else int(v) for v in group[name].dropna()}) for name in names}
    return "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in values.items() if found)
