"""What plain backprop of the programs of the study ``advice`` holds at its peak: ``python -m benchmarks.peaks``.

Prints the five largest rows of each program on each target as Markdown, the share of the bytes with a line, and the
seconds that the reports of the compiler add to a compilation (medians of pairs, in random order).
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import jax

from adcost.arguments import gradient
from adcost.display import in_words
from adcost.plan import Plan, plan
from adcost.suite.vocabulary import Case
from adcost.targets import named
from adcost.targets.alive import told
from adcost.targets.compiling import compiles_here, reporting_to, trace_for
from benchmarks.studies.advice import STUDY, arguments_and_loss
from benchmarks.workloads.programs import PROGRAMS

FIVE = ("vorticity", "adaptive", "lstm", "transformer", "encoder")
ROWS, PAIRS = 5, 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--programs", default=",".join(FIVE), help=f"of {', '.join(PROGRAMS)}")
    options.add_argument("--targets", default="cpu,nvidia-h100")
    options.add_argument("--seconds", action="store_true", help="measure what the reports add; on the targets here")
    asked = options.parse_args()
    for name in asked.programs.split(","):
        for target in asked.targets.split(","):
            print("\n".join(_seconds(name, target) if asked.seconds else peak_lines(name, target)), flush=True)


def case_of(program: str) -> Case:
    """The program at the size of the full profile."""
    return next(case for case in STUDY.cases("full") if case.word("program") == program and case.method == "plain")


def planned(program: str, target: str) -> Plan:
    """The plan of the gradient of a program's loss."""
    by, arguments = arguments_and_loss(case_of(program))
    return plan(gradient(by(jax.lax.scan)), *arguments, target=target)


def peak_lines(program: str, target: str) -> Iterator[str]:
    found = planned(program, target)
    if found.peak is None:
        raise RuntimeError(f"the compiler of {target} tells nothing of {program}")
    shares = f"the rows tell {found.peak.told / found.total:.1%}, {found.peak.with_a_line:.1%} of that has a line"
    yield f"\n**{program}, {target}**: {in_words(found.total)}; {shares}\n"
    yield "| memory | share | shape | what | line | operation |"
    yield "|--:|--:|---|---|---|---|"
    for row in found.peak.rows[:ROWS]:
        cells = in_words(row.size), f"{row.size / found.total:.0%}", row.of, row.what, row.where, row.operation
        yield f"| {' | '.join(cells)} |"


def _seconds(program: str, target: str) -> Iterator[str]:
    """Compilations with and without reports, in random order; the first pair is not counted."""
    chosen = named(target)
    if not compiles_here(chosen):
        yield f"{program}, {target}: not compiled in this process"
        return
    by, arguments = arguments_and_loss(case_of(program))
    run, order = gradient(by(jax.lax.scan)), random.Random(0)
    taken: dict[bool, list[float]] = {True: [], False: []}
    reading = []
    for _ in range(PAIRS + 1):
        for reports in order.sample([True, False], 2):
            lowered = trace_for(lambda *args: run(*args), *arguments, target=chosen).lower()
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                lowered.compile(compiler_options=reporting_to(folder) if reports else None)
                taken[reports].append(time.perf_counter() - start)
                start = time.perf_counter()
                told(Path(folder))
                reading += [time.perf_counter() - start] if reports else []
    plain, ratios = median(taken[False][1:]), [a / b for a, b in zip(taken[True][1:], taken[False][1:], strict=True)]
    said = f"with reports {median(ratios):.2f} of that [{min(ratios):.2f}, {max(ratios):.2f}]"
    yield f"{program}, {target}: compiled in {plain:.2f} s, {said}; read in {median(reading):.3f} s"


if __name__ == "__main__":
    main()
