"""One room a study: what is read off its results, its claims, its figures.

A room is a folder here. ``claims.py`` ends in ``CLAIMS``; a claim is one function, which yields tests, and one entry
there. What its numbers advise, a study may say in a function ``advice``. ``figures.py`` may have ``figures(view)``,
``tables(view)``, of several targets at once ``across(views)`` (also of several versions of JAX if it says
``ACROSS_VERSIONS``), and besides ``animations()`` and ``notes()``.
"""

import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from analysis import verdict
from analysis.advice import Advice
from analysis.frame import Results
from analysis.verdict import Claim, Verdict
from analysis.view import views


def _part(study: str, name: str) -> ModuleType | None:
    path = f"{__name__}.{study}.{name}"
    return importlib.import_module(path) if find_spec(path) else None


_rooms = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
_claims = {study: part for study in _rooms if (part := _part(study, "claims")) is not None}
# The lecture's order: each room says which chapter is its own.
ROOMS = dict(sorted(_claims.items(), key=lambda room: room[1].CHAPTER))
CLAIMS: list[Claim] = [claim for room in ROOMS.values() for claim in room.CLAIMS]


def verdicts(results: Results, claims: list[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim of the studies in the results, on every target and workload that they hold."""
    return verdict.verdicts(claims, views(results))


def advice(results: Results) -> list[Advice]:
    """What the numbers of the targets on which programs ran say to somebody who must choose."""
    found = [view for view in views(results) if view.attached and hasattr(ROOMS.get(view.study), "advice")]
    found.sort(key=lambda view: list(ROOMS).index(view.study))
    return [said for view in found for said in ROOMS[view.study].advice(view)]


def across_versions(study: str) -> bool:
    """Do a study's figures put results of several versions of JAX beside each other?"""
    return study in _rooms and bool(getattr(_part(study, "figures"), "ACROSS_VERSIONS", False))


def drawn(study: str, kind: str, *given: Any) -> list[Any]:
    """A study's figures, tables and so on: what the function of that name in its ``figures.py`` returns."""
    make = getattr(_part(study, "figures") if study in _rooms else None, kind, None)
    return make(*given) if make else []
