"""Which studies there are: one for each file of the folders that are named."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from adcost import _jax
from adcost.suite.vocabulary import PROFILES, Case, Study

Studies = Mapping[str, Study]


def load(*folders: Path, say: Callable[[str], object]) -> dict[str, Study]:
    """The studies of these folders by name: every file in them ends in ``STUDY = Study(...)``.

    Files that begin with an underscore are left alone. A file that fails, or defines no study, costs itself; ``say`` is
    told, in one line.

    Raises
    ------
    ValueError
        If a folder holds no study, or two have one name; in one line.
    """
    found: dict[str, Study] = {}
    for folder in folders:
        files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
        if not files:
            raise ValueError(f"{folder} holds no study; a study is a file that ends in STUDY = Study(...)")
        for path in files:
            try:
                study = getattr(_module(path.resolve()), "STUDY", None)
            except (Exception, SystemExit) as error:
                say(f"{path} fails and is left out: {_jax.first_line(error)}")
                continue
            if not isinstance(study, Study):
                say(f"{path} defines no STUDY and is left out; end it with STUDY = Study(...)")
                continue
            if study.name in found:
                raise ValueError(f"{path} is the second study of the name {study.name!r}; rename one")
            found[study.name] = study
    return found


def root_of(folder: Path) -> Path:
    """Where a folder's sources begin: its outermost package, or the folder itself."""
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


def _module(path: Path) -> ModuleType:
    """The file as the module that it is: of its package, or on its own."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        root, parts = root.parent, [root.name, *parts]
    if len(parts) > 1:
        if str(root) not in sys.path:
            sys.path.append(str(root))
        return importlib.import_module(".".join(parts))
    name = f"adcost_study_{path.stem}"  # a name of its own: a study may be called as a module of Python's is
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def select(studies: Studies, names: str, profile: str) -> list[Case]:
    """The cases of a profile: of these studies, separated by commas, or of ``all``.

    Raises
    ------
    ValueError
        If there is no such study or profile; the message lists those that there are.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    chosen = list(studies) if "all" in chosen else chosen
    for name in chosen:
        if name not in studies:
            raise ValueError(f"unknown study {name!r}; choose from: {', '.join(studies)}, or all")
    return [case for name in dict.fromkeys(chosen) for case in studies[name].cases(profile)]
