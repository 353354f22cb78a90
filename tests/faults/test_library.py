"""The library in somebody's process, when the compiler's process dies, hangs, has no room, or is asked by many."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import psutil
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adcost
from adcost.targets import elsewhere
from adcost.targets.elsewhere import CompilerFailed
from benchmarks import ROOT
from tests.faults.damage import run

TARGET = "cpu:2"  # its compiler needs a process of its own


def shape(n=64):
    return jax.ShapeDtypeStruct((n, 8), "float32", sharding=NamedSharding(adcost.mesh(TARGET, d=2), P("d")))


def total(scale, n=64):
    """The plan of a program that no other test plans."""
    return adcost.plan(lambda x: jnp.sin(scale * x), shape(n), target=TARGET).total


def workers():
    return [p for p in psutil.Process().children() if any("adcost.targets.worker" in word for word in p.cmdline())]


def test_a_compiler_that_is_killed_costs_one_plan():
    assert total(1.5) > 0
    (*_, worker) = workers()
    worker.suspend()  # it is asked, and dies before it answers
    threading.Timer(1, worker.kill).start()
    with pytest.raises(CompilerFailed, match=r"was killed \(signal 9\), most likely for want of memory$"):
        total(2.5)
    assert total(2.5) > 0, "and another one answers the next time"


def test_a_compiler_that_crashes_is_said_by_its_signal():
    assert total(1.25) > 0
    (*_, worker) = workers()
    worker.suspend()
    threading.Timer(1, lambda: (worker.send_signal(signal.SIGSEGV), worker.resume())).start()
    with pytest.raises(CompilerFailed, match=r"ended by signal 11 \(Segmentation fault\)"):
        total(2.25)


def test_a_compiler_that_hangs_is_given_up_and_ended(monkeypatch):
    assert total(3.5) > 0
    (*_, worker) = workers()
    worker.suspend()
    monkeypatch.setenv("ADCOST_COMPILER_SECONDS", "1")
    with pytest.raises(CompilerFailed, match=r"no plan within 1 s \(ADCOST_COMPILER_SECONDS sets the limit\)$"):
        total(4.5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    monkeypatch.delenv("ADCOST_COMPILER_SECONDS")
    assert total(4.5) > 0


def test_a_limit_that_is_no_number_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("ADCOST_COMPILER_SECONDS", "soon")
    with pytest.raises(ValueError, match=r"ADCOST_COMPILER_SECONDS='soon': give a number of seconds"):
        elsewhere.limit()


def test_many_threads_ask_at_once_and_each_gets_its_own_answer():
    sizes = [64 * k for k in range(1, 7)]
    alone = {n: adcost.plan(jnp.cos, shape(n), target=TARGET).arguments for n in sizes}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: adcost.plan(jnp.tan, shape(n), target=TARGET).arguments, sizes))
    assert found == [alone[n] for n in sizes] == [4 * 8 * n / 2 for n in sizes]


def test_a_program_that_cannot_be_exported_is_said_in_one_line():
    def ordered(x):
        jax.debug.callback(lambda _: None, x, ordered=True)
        return x

    with pytest.raises((ValueError, CompilerFailed)) as said:
        adcost.plan(ordered, shape(), target=TARGET)
    assert "\n" not in str(said.value)


PLANS = """
import sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
import adcost
mesh = adcost.mesh("cpu:2", d=2)
x = jax.ShapeDtypeStruct((64, 8), "float32", sharding=NamedSharding(mesh, P("d")))
print(adcost.plan(lambda x: jnp.sin(x), x, target="cpu:2").total, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_no_compiler_outlives_who_asked(end):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", PLANS], cwd=ROOT, **pipes) as parent:
        assert int(parent.stdout.readline()) > 0
        started = psutil.Process(parent.pid).children()
        assert started
        if end is None:
            parent.stdin.close()
        else:
            parent.send_signal(end)
        parent.wait(30)
    wait_until = time.monotonic() + 20
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started):
        assert time.monotonic() < wait_until
        time.sleep(0.1)


def test_a_worker_of_xdist_plans_as_anybody():
    done = run("-c", PLANS, PYTEST_XDIST_WORKER="gw0", PYTEST_XDIST_TESTRUNUID="1")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_temporary_folder_that_is_full_is_said_in_one_line(tiny_disk, tmp_path):
    (tmp_path / "f.py").write_text(
        "import jax, jax.numpy as jnp\nfrom jax.sharding import NamedSharding, PartitionSpec as P\nimport adcost\n"
        "def f(x):\n    for _ in range(300):\n        x = jnp.sin(x)\n    return x\n"
        "def example():\n    mesh = adcost.mesh('cpu:2', d=2)\n"
        "    return (jax.ShapeDtypeStruct((64, 8), 'float32', sharding=NamedSharding(mesh, P('d'))),)\n"
    )
    folder = tiny_disk(8)  # room for what Python tries it with, and for no program
    (folder / "fill").write_bytes(bytes(4096))
    done = run("-m", "adcost", "plan", tmp_path / "f.py:f", "--target", "cpu:2", TMPDIR=folder)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("adcost: ")
    assert "No space left on device" in last or "No usable temporary directory" in last
    assert "Traceback" not in done.stderr
    assert os.listdir(folder) == ["fill"]


def test_reports_that_are_cut_short_by_a_full_disk_are_not_read(tiny_disk, tmp_path):
    (tmp_path / "f.py").write_text(
        "import jax.numpy as jnp\ndef f(x):\n    for _ in range(300):\n        x = jnp.sin(x) @ x\n    return x\n"
        "def example():\n    return (jnp.ones((64, 64)),)\n"
    )
    done = run("-m", "adcost", "plan", tmp_path / "f.py:f", TMPDIR=tiny_disk(64))
    assert done.returncode == 2
    assert "no room for the compiler's reports: No space left on device" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(x): return x\n", "has no function example"),
        ("def f(x): return x\ndef example(): return 1\n", "must give a tuple of arguments"),
        ("def f(x): raise ValueError('mine')\ndef example(): return (1.0,)\n", "mine"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def (", "invalid syntax"),
        ("raise SystemExit(3)\n", "3"),
        ("# \xff", "f.py"),
    ],
)
def test_a_file_that_fails_is_said_in_one_line(text, words, tmp_path):
    (tmp_path / "f.py").write_bytes(text.encode("latin-1"))
    done = run("-m", "adcost", "plan", tmp_path / "f.py:f")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("adcost: ")
    assert words in last
    assert "Traceback" not in done.stderr
