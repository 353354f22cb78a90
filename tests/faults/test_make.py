"""``make`` installs into an environment of its own, or into none."""

import os
import shutil
import subprocess
import sys

import pytest

from benchmarks import ROOT

if shutil.which("make") is None:
    pytest.skip("needs make", allow_module_level=True)


def own(venv):
    """Make's own question: is this an environment of its own, with pip in it?"""
    rule = "include Makefile\nanswer:\n\t@$(OWN)\n"
    done = subprocess.run(
        ["make", "-s", "-f", "-", "answer", f"VENV={venv}", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        input=rule,
        capture_output=True,
        text=True,
    )
    return done.returncode == 0


def test_an_environment_of_its_own_is_one(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    assert not own(tmp_path / "venv"), "there is no pip in it"
    packages = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    assert own(tmp_path / "venv")


@pytest.mark.parametrize("left", ["a link to another Python", "nothing", "a folder", "a Python that does not start"])
def test_what_is_half_made_is_none(left, tmp_path):
    place = tmp_path / "venv" / "bin"
    if left != "nothing":
        place.mkdir(parents=True)
    if left == "a link to another Python":
        (place / "python").symlink_to(os.path.realpath(sys.executable))
    if left == "a Python that does not start":
        (place / "python").write_text("#!/bin/sh\nexit 1\n")
        (place / "python").chmod(0o755)
    assert not own(tmp_path / "venv")


def test_a_folder_of_somebody_is_not_made_an_environment(tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "thesis.tex").write_text("mine")
    asked = ["make", f"VENV={venv}", f"PYTHON={sys.executable}", str(venv / "report")]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "holds more than an environment: name another VENV" in done.stderr
    assert (venv / "thesis.tex").read_text() == "mine"
    assert sorted(path.name for path in venv.iterdir()) == ["bin", "thesis.tex"]


def test_a_half_made_environment_is_made_anew_and_the_other_python_stays_as_it_is(tmp_path):
    """Nothing can be installed here, so that it ends with pip's failure: in the new environment."""
    shared = tmp_path / "shared"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(shared)], check=True)
    before = sorted(str(path) for path in shared.rglob("*"))
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(shared / "bin" / "python")
    done = subprocess.run(
        ["make", f"VENV={venv}", f"PYTHON={sys.executable}", str(venv / "report")],
        cwd=ROOT,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"makes {venv}" in done.stdout
    assert own(venv)
    assert sorted(str(path) for path in shared.rglob("*")) == before
