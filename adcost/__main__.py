"""The command ``adcost``."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from adcost.targets import named, not_installed
from adcost.whole import print_anything

Options = argparse.Namespace
Command = Callable[[Options], Iterator[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors are one line, also those of the user's function, and end it with status 2."""
    print_anything()
    options = _parser().parse_args(arguments)
    command: Command = options.run
    try:
        _run_where_it_is_asked(getattr(options, "target", "cpu"))
        for line in command(options):
            print(line)
    except KeyboardInterrupt:
        print("adcost: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        where = _in_the_file(error, getattr(options, "function", ""))
        if not where and not isinstance(error, ValueError | RuntimeError | OSError | TypeError):
            raise  # a fault of ours
        said = str(error).strip().splitlines() or [""]
        print(f"adcost: {where}{type(error).__name__ + ': ' if where else ''}{said[0]}", file=sys.stderr)
        return 2
    return 0


def _run_where_it_is_asked(name: str) -> None:
    """JAX runs on the target if it is a device, otherwise on the CPU, unless the user said where."""
    target = named(name)
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", target.environment["JAX_PLATFORMS"] if target.attached else "cpu")
    try:
        jax.devices()
    except Exception as error:  # a plugin that fails raises what it likes
        raise RuntimeError(f"JAX finds no device for {name} here: {type(error).__name__}") from error


def _in_the_file(error: Exception, function: str) -> str:
    """Where in the user's file an error was raised, from which all of it came; nothing if it was not."""
    path = Path(function.rpartition(":")[0]).absolute()
    lines = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).absolute() == path]
    return f"{path.name}:{lines[-1].lineno}: " if lines else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adcost", description="What automatic differentiation costs in JAX.")
    commands = parser.add_subparsers(dest="command", required=True)
    plan = _of_a_function(commands, "plan", _plan, "what a program takes on a device that need not be here")
    advise = _of_a_function(commands, "advise", _advise, "which way to differentiate a loss within a memory")
    mode = _of_a_function(commands, "mode", _mode, "forward or reverse mode for a Jacobian")
    largest = _of_a_function(commands, "largest", _largest, "the largest size whose gradient fits")
    for each in (plan, advise, largest):
        each.add_argument("--target", default="cpu", help="name of a device, or a cluster as nvidia-h100:8x32 (cpu)")
        each.add_argument("--memory", help='bytes, or as "16GiB" (that of the target)')
    plan.add_argument("--grad", action="store_true", help="of the function's gradient, by --argnums")
    plan.add_argument("--lines", action="store_true", help="all lines that hold memory at the peak, not the largest")
    plan.add_argument("--annotate", action="store_true", help="print the file with the bytes that its lines hold")
    plan.add_argument("--save", type=Path, metavar="PLAN.json", help="write the plan to a file, for adcost diff")
    told = "what changed between two plans that were saved, line by line"
    diff = commands.add_parser("diff", help=told, description=f"Says {told} (adcost plan --save).")
    diff.add_argument("plans", nargs=2, type=Path, metavar="PLAN.json")
    diff.add_argument("--json", action="store_true", help="print JSON")
    diff.set_defaults(run=_diff)
    largest.add_argument("--least", type=int, default=1, help="smallest size that makes sense (1)")
    largest.add_argument("--most", type=int, help="size beyond which nothing is tried")
    for each in (plan, advise, mode, largest):
        each.add_argument("--argnums", default="0", help="arguments to differentiate by, separated by commas (0)")
    _measuring(commands)
    return parser


def _of_a_function(commands: Any, name: str, run: Command, told: str) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name, help=told, description=f"Says {told}. The file also holds a function that gives the arguments."
    )
    made.add_argument("function", metavar="FILE.py:FUNCTION")
    made.add_argument(
        "--example", default="example", help="the function in the file that gives the arguments (example)"
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(run=run)
    return made


def _plan(options: Options) -> Iterator[str]:
    from adcost.arguments import gradient
    from adcost.files import loaded
    from adcost.plan import plan

    f, example = loaded(options.function, options.example)
    args = example()
    program = gradient(f, _argnums(options), args) if options.grad else f
    found = plan(program, *args, target=options.target, memory=options.memory)
    if options.save is not None:
        found.save(options.save)
    if options.annotate:
        from adcost.peak import annotated

        if found.peak is None:
            raise RuntimeError(f"the compiler of {options.target} tells no line of this program")
        yield annotated(found.peak, Path(options.function.rpartition(":")[0]))
    elif options.json:
        yield json.dumps(found.json())
    else:
        yield found.lines() if options.lines else str(found)


def _diff(options: Options) -> Iterator[str]:
    from adcost.difference import diff

    found = diff(*options.plans)
    yield json.dumps(found.json()) if options.json else str(found)


def _advise(options: Options) -> Iterator[str]:
    from adcost.advise import advise
    from adcost.files import loaded

    f, example = loaded(options.function, options.example)
    found = advise(f, *example(), argnums=_argnums(options), memory=options.memory, target=options.target)
    yield json.dumps(found.json()) if options.json else str(found)


def _mode(options: Options) -> Iterator[str]:
    from dataclasses import asdict

    from adcost.files import loaded
    from adcost.modes import which_mode

    f, example = loaded(options.function, options.example)
    found = which_mode(f, *example(), argnums=_argnums(options))
    yield json.dumps(asdict(found)) if options.json else "\n".join((f"{found.mode}: {found.why}", *found.caveats))


def _largest(options: Options) -> Iterator[str]:
    from adcost.files import loaded
    from adcost.largest import MOST, largest

    f, example = loaded(options.function, options.example)
    sizes = {"least": options.least, "most": options.most or MOST}
    found = largest(f, example, argnums=_argnums(options), memory=options.memory, target=options.target, **sizes)
    yield json.dumps(found.json()) if options.json else str(found)


def _argnums(options: Options) -> int | tuple[int, ...]:
    try:
        found = tuple(int(word) for word in options.argnums.split(","))
    except ValueError:
        raise ValueError(f"--argnums {options.argnums}: give numbers separated by commas") from None
    return found[0] if len(found) == 1 else found


def _measuring(commands: Any) -> None:
    measure = commands.add_parser(
        "measure",
        help="measure studies and write what was found as JSON",
        description="Measures the studies of folders: every file in one ends in STUDY = Study(...). A run that was cut "
        "short goes on where it was when the same command is given again.",
    )
    measure.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder of studies")
    measure.add_argument("--study", default="all", help="names of studies, separated by commas (all)")
    measure.add_argument("--profile", default="quick", help="quick or full (quick)")
    measure.add_argument("--targets", default="cpu", help="names of targets, separated by commas (cpu)")
    measure.add_argument("--processes", type=int, help="in which programs are timed (those of the profile)")
    measure.add_argument("-o", "--output", type=Path, default=Path("adcost.json"), help="file (adcost.json)")
    measure.set_defaults(run=_measure)


def _measure(options: Options) -> Iterator[str]:
    absent = not_installed(("suite", "memory_profiler"))
    if absent is not None:
        raise RuntimeError(absent)
    from adcost.suite.measure import measure_to_file

    return measure_to_file(
        options.folders, options.study, options.profile, options.targets, options.output, options.processes
    )


if __name__ == "__main__":
    sys.exit(main())
