"""A function of somebody's file: ``FILE.py:FUNCTION`` of the command line."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adcost import _jax

Function = Callable[..., Any]


def loaded(named: str, example: str) -> tuple[Function, Function]:
    """A function of a file, and the function in the same file that gives its arguments, as a tuple.

    Raises
    ------
    ValueError
        If there is no such file or function, or the file fails; in one line.
    """
    file, _, name = named.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ValueError(f"{named}: give FILE.py:FUNCTION, with a file that is there")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))  # as if it were run
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} fails: {_jax.first_line(error)}") from error
    return _function(module, path, name), _arguments(_function(module, path, example), example)


def _function(module: Any, path: Path, name: str) -> Function:
    found = getattr(module, name, None)
    if not callable(found):
        known = [known for known in vars(module) if callable(getattr(module, known)) and not known.startswith("_")]
        raise ValueError(f"{path} has no function {name}; it has {', '.join(known) or 'none'}")
    return found


def _arguments(example: Function, name: str) -> Function:
    def run(*sizes: int) -> tuple[Any, ...]:
        found = example(*sizes)
        if not isinstance(found, tuple):
            raise ValueError(f"{name}() must give a tuple of arguments, it gave {type(found).__name__}")
        return found

    return run
