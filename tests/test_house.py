"""The house: which floor imports which, and the library installed alone and used from nowhere near the checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
OF_THE_LIBRARY = [block for block in BLOCKS if "import adcost" in block or "from adcost" in block]


def run(*command, cwd=ROOT):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_each_floor_imports_only_what_it_may():
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources: building in the checkout would leave files there."""
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "clone", "-q", str(ROOT), str(folder / "clone"))
    for path in run("git", "ls-files", "-co", "--exclude-standard", "adcost", "pyproject.toml").stdout.split():
        (folder / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "clone" / path).write_bytes((ROOT / path).read_bytes())
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(folder / "clone"))
    (found,) = folder.glob("adcost-*.whl")
    assert built.returncode == 0, built.stderr
    return found


def test_the_wheel_holds_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"adcost"}
    assert "adcost/py.typed" in names


def test_the_library_works_with_its_own_dependencies_alone(wheel, tmp_path):
    """README's examples, in an environment that holds the wheel and what it depends on, from an empty folder."""
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "venv", str(home))
    python = str(home / "bin" / "python")
    constraints = str(ROOT / "constraints.txt")
    installed = run(python, "-m", "pip", "install", "-q", "-c", constraints, str(wheel), cwd=empty)
    assert installed.returncode == 0, installed.stderr
    listed = run(python, "-m", "pip", "list", "--format=freeze", cwd=empty).stdout.lower()
    assert not re.search(r"^(scipy-|pandas|pytest|jaxtyping|matplotlib)", listed, re.MULTILINE)
    assert OF_THE_LIBRARY
    os.environ["JAX_PLATFORMS"] = "cpu"
    for block in OF_THE_LIBRARY:
        done = run(python, "-c", block, cwd=empty)
        assert done.returncode == 0, done.stderr
    said = run(str(home / "bin" / "adcost"), "measure", ".", cwd=empty)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1), "one line says what is not installed"
    assert "pip install -e '.[suite]'" in said.stderr
