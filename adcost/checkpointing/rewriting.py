"""The loops of any function by schedules, whoever wrote it: ``checkpointed``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.executor import step_bytes
from adcost.checkpointing.outputs import read_inside, stacked
from adcost.checkpointing.pairs import in_blocks
from adcost.checkpointing.scan import loop_of, scheduled
from adcost.checkpointing.schedules import Schedule, blocks, grid
from adcost.checkpointing.values import arrays, chosen, is_array, merged

Chosen = Schedule | Callable[[int], Schedule | None]
Policy = Callable[..., Any]  # of jax.checkpoint
WORTH_IT = 0.5  # of plain's memory: a schedule that takes more is not worth its evaluations


@dataclass(frozen=True)
class LoopFound:
    """A loop of a function: where it stands, how many steps it has (None: only the data know), what is done with it."""

    line: str
    steps: int | None
    done: str

    def __str__(self) -> str:
        return f"{self.line}: {'?' if self.steps is None else self.steps} steps, {self.done}"


Decision = Schedule | str | None  # a schedule, or why the loop stays as it is; None: its body goes under the policy
Decide = Callable[[_jax.Scan, int], Decision]  # of a loop, and of how many stand beside it


@dataclass(frozen=True, eq=False)
class Checkpointed:
    """A function whose loops run by schedules; called as the function itself."""

    f: Callable[..., Any]
    decide: Decide
    policy: Policy | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._traced(args, kwargs, [])

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """Its arguments have the function's names."""
        return self.f

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method of its instance, if it stands in a class."""
        return self if instance is None else Checkpointed(partial(self.f, instance), self.decide, self.policy)

    def loops(self, *args: Any, **kwargs: Any) -> tuple[LoopFound, ...]:
        """What is done with each loop of ``f(*args, **kwargs)``; arguments may be ``jax.ShapeDtypeStruct``."""
        found: list[LoopFound] = []
        run, given = of_arrays(lambda *args, **kwargs: self._traced(args, kwargs, found), args, kwargs)
        jax.eval_shape(run, *given)
        return tuple(found)

    def _traced(self, args: Any, kwargs: Any, found: list[LoopFound]) -> Any:
        return rewritten(self.f, args, kwargs, lambda closed, given: self._run(closed, given, found))

    def _run(self, closed: Any, given: Sequence[Any], found: list[LoopFound], beside: int = 0) -> list[Any]:
        closed = in_blocks(read_inside(closed))
        kept = stacked(closed)
        beside += max(0, sum(_jax.scan_length(eqn) is not None for eqn in _within(closed.jaxpr)) - 1)
        return _jax.evaluated_program(closed, given, lambda eqn: self._rule(eqn, found, beside, kept))

    def _rule(
        self, eqn: Any, found: list[LoopFound], beside: int, kept: Mapping[int, str]
    ) -> Callable[[Sequence[Any]], Any] | None:
        """What runs in an equation's place; None if it stays as it is."""
        name = _jax.primitive_name(eqn)
        inside = [program for program, _, _ in _jax.subprograms(eqn)]
        if not _jax.is_loop(eqn) and not any(map(_jax.is_loop, (e for p in inside for e in _jax.equations(p)))):
            return None
        if name == _jax.SCHEDULED:
            its = eqn.params["loop"].schedule
            found.append(LoopFound(_jax.line(eqn), its.depth, f"{told(its)}: its own schedule"))
            return None
        if name == "scan":
            return lambda operands: self._scan(eqn, operands, found, beside, kept.get(id(eqn), ""))
        if _jax.is_called(eqn):
            return lambda operands: _jax.called(eqn, operands, self._inside(found, beside))
        reason = "only the data know how often it runs" if name == "while" else _left(name)
        if name == "while":
            inside = [_jax.while_parts(eqn).body.jaxpr]
        left = [e for p in inside for e in _jax.equations(p) if _jax.is_loop(e)]
        left = [eqn, *left] if _jax.is_loop(eqn) else left
        found += [LoopFound(_jax.line(e), _jax.scan_length(e), f"as it was: {reason}") for e in left]
        return None

    def _inside(self, found: list[LoopFound], beside: int) -> Callable[[Any, Sequence[Any]], list[Any]]:
        """What runs a program that is called: its loops stand beside those around it."""

        def run(closed: Any, given: Sequence[Any]) -> list[Any]:
            kept = stacked(closed)
            return _jax.evaluated_program(closed, given, lambda eqn: self._rule(eqn, found, beside, kept))

        return run

    def _scan(self, eqn: Any, operands: Sequence[Any], found: list[LoopFound], beside: int, outputs: str) -> list[Any]:
        parts = _jax.scan_parts(eqn)
        place = len(found)
        body = jax.make_jaxpr(lambda *values: self._run(parts.body, values, found))(*parts.body.in_avals)
        parts = parts._replace(body=body)
        effects = _jax.ordered_effects(parts.body)
        decision = f"its body has effects ({', '.join(effects)})" if effects else self.decide(parts, beside)
        if isinstance(decision, Schedule):
            said = "; ".join(filter(None, (told(decision), outputs)))
            found.insert(place, LoopFound(_jax.line(eqn), parts.length, said))
            return scheduled(parts, operands, decision)
        said = "its body under the policy" if decision is None else f"as it was: {decision}"
        found.insert(place, LoopFound(_jax.line(eqn), parts.length, said))
        return self._plain(parts, operands, decision is None)

    def _plain(self, parts: _jax.Scan, operands: Sequence[Any], under_policy: bool) -> list[Any]:
        consts, init, xs = np.split(np.arange(len(operands)), [parts.consts, parts.consts + parts.carry])
        run = core.jaxpr_as_fun(parts.body)

        def step(carry: Any, x: Any) -> Any:
            out = run(*(operands[i] for i in consts), *carry, *x)
            return out[: parts.carry], out[parts.carry :]

        f = jax.checkpoint(step, policy=_asked(self.policy), prevent_cse=False) if under_policy else step
        start = [operands[i] for i in init], [operands[i] for i in xs]
        carry, ys = _jax.scan(f, *start, parts.length, parts.reverse)
        return [*carry, *ys]


def checkpointed(
    f: Callable[..., Any],
    schedule: Chosen | None = None,
    *,
    slots: int | None = None,
    block: int | None = None,
    tail: int | None = None,
    policy: Callable[..., bool] | None = None,
) -> Checkpointed:
    """The same function, its scans run by schedules: in any package, under jit, in branches and in other loops.

    Parameters
    ----------
    f
        A function of arrays; other leaves of its arguments (sizes, flags, functions) stay as they are.
    schedule
        A function of the length, as ``adcost.sqrt``, or a schedule if all loops have its length. Loops for whose length
        the function gives None stay as they are.
    slots, block, tail
        Of ``adcost.blocks`` for every loop instead, as far as it is long enough.
    policy
        Instead of a schedule: every loop's body under ``jax.checkpoint`` with this policy.

    Returns
    -------
    The function, to be differentiated in any mode. Without a choice each loop gets blocks with at most two evaluations
    a step, as few bytes as that allows, or stays as it is where that would not halve what it keeps. Its
    ``loops(*args)`` says what is done with each loop, by source line.

    Raises
    ------
    ValueError
        If more than one way is chosen.
    """
    numbers = {"slots": slots, "block": block, "tail": tail}
    given = [name for name, value in {"schedule": schedule, **numbers, "policy": policy}.items() if value is not None]
    if len(given) > 1 and not set(given) <= set(numbers):
        ways = "a schedule, slots with block and tail, or a policy"
        raise ValueError(f"one way for all loops: {ways}; got {', '.join(given)}")
    if policy is not None:
        return Checkpointed(f, lambda *_: None, policy)
    if schedule is not None:
        made = schedule
        return Checkpointed(f, lambda parts, _: _of_length(made, parts.length))
    if given:
        return Checkpointed(f, lambda parts, _: _by_numbers(parts.length, slots, block or 1, tail))
    return Checkpointed(f, in_two_passes)


def _of_length(schedule: Chosen, length: int) -> Schedule | str:
    made = schedule(length) if callable(schedule) else schedule
    return f"there is no schedule for {length} steps" if made is None else made


def _by_numbers(length: int, slots: int | None, block: int, tail: int | None) -> Schedule | str:
    if length < 2 * block + (tail or 0):
        return f"{length} steps are too few for two blocks of {block} and a tail of {tail or 0}"
    rest = None if tail is None else tail + (length - tail) % block
    return blocks(length, slots, block, rest)


def in_two_passes(parts: _jax.Scan, beside: int) -> Schedule | str:
    """Blocks with at most two evaluations a step and the least memory; or why the loop is better left as it is.

    What a loop keeps stays while the loops ``beside`` it go back.
    """
    try:
        kept, inputs, carry = step_bytes(loop_of(parts, blocks(parts.length)))
    except (ValueError, NotImplementedError) as error:
        return f"its body has no reverse mode ({_jax.first_line(error)})"
    if kept == 0:
        return "it keeps nothing"
    length = parts.length

    def held(block: int) -> int:
        count, tail = divmod(length, block)
        forward = count * carry + tail * (kept + inputs)
        return (beside + 1) * forward + max(block - tail, 0) * (kept + inputs)

    block = min(grid(1, max(1, length // 2)), key=held)
    made = blocks(length, None, block, length % block if beside else None)
    if held(block) > WORTH_IT * (beside + 1) * length * kept:
        return f"{told(made)} would hold {held(block) / 2**20:.3g} MiB, plain holds {length * kept / 2**20:.3g}"
    return made


def told(schedule: Schedule) -> str:
    """A schedule in a few words."""
    if not schedule.blocks:
        return "plain"
    of = f"blocks of {schedule.block}, " if schedule.block > 1 else ""
    return f"{of}{schedule.slots} slots, a tail of {schedule.tail}"


def _asked(policy: Policy | None) -> Policy | None:
    """A policy that is not told parameters called as its own argument, as Equinox's primitives have them."""

    if policy is None:
        return None

    def asked(primitive: Any, /, *operands: Any, **params: Any) -> Any:
        return policy(primitive, *operands, **{name: value for name, value in params.items() if name != "prim"})

    return asked


def _left(name: str) -> str:
    return f"it stands in {name}, which has a rule of its own for derivatives"


def _within(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program and of what it calls, not those of the bodies of its loops."""
    for eqn in jaxpr.eqns:
        yield eqn
        if _jax.is_called(eqn):
            for program, _, _ in _jax.subprograms(eqn):
                yield from _within(program)


def rewritten(f: Callable[..., Any], args: Any, kwargs: Any, run: _jax.Run) -> Any:
    """What a call gives if its program is run in another way."""
    call, given = of_arrays(f, args, kwargs)
    closed, shape = jax.make_jaxpr(call, return_shape=True)(*given)
    return jax.tree.unflatten(jax.tree.structure(shape), arrays(run(_jax.pruned(closed), given), closed.out_avals))


def of_arrays(f: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A call as a function of its arrays, and these; sizes, flags and functions stay in it."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    mask = [is_array(leaf) for leaf in leaves]

    def run(*given: Any) -> Any:
        args, kwargs = jax.tree.unflatten(tree, merged(given, leaves, mask))
        return f(*args, **kwargs)

    return run, list(chosen(leaves, mask))
