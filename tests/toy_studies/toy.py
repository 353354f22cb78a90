"""A study whose methods succeed, lie, raise, die, are killed and dawdle: what the recorder has to live with."""

import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from adcost.suite.vocabulary import Case, Method, Program, Study


def at_run(effect):
    def build():
        def run(x):
            jax.debug.callback(effect)
            return x

        return run

    return build


def plain():
    return lambda x: x


def raising():
    raise RuntimeError("this method\ncannot be built")


def lying():
    return lambda x: 1.01 * x


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def dying():
    os._exit(3)


def dawdling():
    time.sleep(60)


def once_dead():
    """Dies in the first process that builds it, not in the next."""
    flag = os.environ["TOY_FLAG"]
    if not os.path.exists(flag):
        open(flag, "w").close()
        os._exit(4)
    return plain()


def dies_later():
    """Dies in the second process that builds it: the first measures it."""
    flag = Path(os.environ["TOY_FLAG"] + " later")
    processes = {*(flag.read_text().split() if flag.exists() else ()), str(os.getpid())}
    if len(processes) > 1:
        os._exit(5)
    flag.write_text(" ".join(processes))
    return plain()


METHODS = {
    "plain": Method(plain),
    "twin": Method(plain),
    "raising": Method(raising),
    "lying": Method(lying),
    "killed": Method(at_run(killed)),
    "dying": Method(at_run(dying)),
    "dawdling": Method(at_run(dawdling)),
    "once_dead": Method(once_dead),
    "dies_later": Method(dies_later),
    "absent": Method(plain, extra=("peers", "no_such_module")),
    "bounded": Method(plain, {"n": 4}, "it is too slow beyond"),
}


def program(case: Case) -> Program:
    chain = METHODS[case.method].build()

    def loss(x):
        return jnp.sum(chain(x) ** 2) / 2

    return Program(jax.grad(loss), lambda: (np.ones(case["n"], np.float32),), loss)


STUDY = Study(
    name="toy",
    question="Does one bad case cost the others anything?",
    methods=METHODS,
    sizes={"quick": [{"n": 4}, {"n": 8}], "full": [{"n": 4}]},
    program=program,
    reference=lambda case: np.ones(case["n"]),
    tolerance=lambda case: 1e-6,
    baselines=("plain",),
)
