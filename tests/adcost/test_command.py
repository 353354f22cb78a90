"""The command ``adcost``: a function of a file."""

import json

import pytest

from adcost.__main__ import main

FILE = """
import jax, jax.numpy as jnp
from jax import lax

def loss(w, h):
    return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=100)[0])

def tall(x):
    return jnp.outer(jnp.arange(50.0), x)

def example(n=64):
    return jax.ShapeDtypeStruct((16, 16), "float32"), jax.ShapeDtypeStruct((n, 16), "float32")

def few():
    return (jnp.ones(3),)

def no_tuple():
    return 3

def sized(n):
    return (jnp.ones(n),)

def pairs(w, h):
    return w @ h.T

def broken(w, h):
    return w @ h @ "text"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_plan(file, capsys):
    assert main(["plan", f"{file}:loss", "--grad"]) == 0
    assert capsys.readouterr().out.startswith("cpu: ")
    assert main(["plan", f"{file}:loss", "--grad", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arguments"] == 4 * (16 * 16 + 64 * 16)


def test_advise(file, capsys):
    assert main(["advise", f"{file}:loss", "--memory", "100 KiB"]) == 0
    assert "adcost.checkpointed(loss" in capsys.readouterr().out
    assert main(["advise", f"{file}:loss", "--memory", "100KiB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"] == 100 * 1024


def test_mode(file, capsys):
    assert main(["mode", f"{file}:tall", "--example", "few"]) == 0
    assert capsys.readouterr().out.startswith("forward: ")


def test_largest(file, capsys):
    assert main(["largest", f"{file}:loss", "--memory", "1 MiB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["n"] > 64


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nothing.py:loss", "give FILE.py:FUNCTION, with a file that is there"),
        ("{file}", "give FILE.py:FUNCTION"),
        ("{file}:missing", "has no function missing; it has loss"),
        ("{file}:loss --example no_tuple", "must give a tuple of arguments, it gave int"),
        ("{file}:loss --target h100", "unknown target 'h100'"),
        ("{file}:loss --memory lots", "is no memory"),
        ("{file}:broken", "mine.py:27: TypeError: "),
        ("{file}:pairs --grad", "scalar"),
        ("{file}:loss --example few", "missing 1 required positional argument"),
        ("{file}:loss --example sized", "missing 1 required positional argument"),
        ("{file}:loss --grad --argnums 5", "argnums 5 ask for an argument that is not there"),
        ("{file}:loss --grad --argnums x", "give numbers separated by commas"),
    ],
)
def test_errors_are_one_line(file, given, said, capsys):
    assert main(["plan", *given.format(file=file).split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_that_fails_says_how(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    assert main(["plan", f"{path}:loss"]) == 2
    assert "broken.py fails: ZeroDivisionError" in capsys.readouterr().err
