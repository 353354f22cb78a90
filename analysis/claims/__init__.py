"""The claims: what the lecture says, what was predicted before the run, and the verdicts.

A claim is one function, which yields a verdict for each ruler and method, and one entry in the ``CLAIMS`` of its
study's file; a file is found by being in this folder. What its numbers advise, it may say in a function ``advice``.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import replace

from analysis.advice import Advice
from analysis.frame import Results
from analysis.verdict import Claim, Verdict
from analysis.view import differences, views

# The lecture's order; what it does not name comes after.
LECTURE = ("modes", "closed_forms", "hessians", "linear_solve", "svd", "backprop", "networks", "trace")
_found = sorted(module.name for module in pkgutil.iter_modules(__path__))
STUDIES = {
    name: importlib.import_module(f"{__name__}.{name}")
    for name in sorted(_found, key=lambda name: LECTURE.index(name) if name in LECTURE else len(LECTURE))
}
CLAIMS: list[Claim] = [claim for module in STUDIES.values() for claim in module.CLAIMS]


def verdicts(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim of the studies in the results, on every target and workload that they hold."""
    found = views(results)
    rows = []
    for claim in claims:
        for view in (view for view in found if view.study == claim.study):
            words = differences(view, found)
            for verdict in claim.rule(view):
                rows.append(replace(verdict, why=f"{words}: {verdict.why}") if words else verdict)
    return list(dict.fromkeys(rows))  # a count is the same on every target


def counted(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Number of verdicts by kind."""
    kinds = [verdict.verdict for verdict in verdicts]
    return {kind: kinds.count(kind) for kind in ("confirmed", "refuted", "inconclusive", "not measured")}


def advice(results: Results) -> list[Advice]:
    """What the numbers of the targets on which programs ran say to somebody who must choose."""
    found = [view for view in views(results) if view.attached and hasattr(STUDIES.get(view.study), "advice")]
    found.sort(key=lambda view: list(STUDIES).index(view.study))
    return [said for view in found for said in STUDIES[view.study].advice(view)]
