"""The ways to differentiate a loss in less memory that ``advise`` and ``largest`` try, each with its code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from adcost import _jax
from adcost.checkpointing.executor import step_bytes
from adcost.checkpointing.parts import in_parts
from adcost.checkpointing.rewriting import Checkpointed, checkpointed, of_arrays
from adcost.checkpointing.scan import loop_of
from adcost.checkpointing.schedules import Schedule, blocks, sqrt, within
from adcost.checkpointing.values import is_array, is_inexact, nbytes
from adcost.targets import Target

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Candidate:
    """A way to compute a gradient.

    Attributes
    ----------
    name
        For people.
    code
        The loss in this way, as an expression in ``loss``.
    apply
        Makes it of the loss.
    """

    name: str
    code: str
    apply: Callable[[Loss], Loss]


@dataclass(frozen=True)
class Features:
    """What of a program decides which candidates make sense.

    Attributes
    ----------
    loops, names, straight
        Has it loops; the names of its values; does it compute much outside of loops?
    arrays
        Are its arguments arrays alone?
    """

    loops: bool
    names: tuple[str, ...]
    straight: bool
    arrays: bool


def features(closed: Any, args: Sequence[Any], temp: int) -> Features:
    """Those of a traced loss of these arguments whose gradient takes so many temporary bytes."""
    every = list(_jax.equations(closed.jaxpr))
    loops = any(_jax.scan_length(eqn) is not None for eqn in every)
    names = dict.fromkeys(str(eqn.params["name"]) for eqn in every if eqn.primitive.name == "name")
    straight = [eqn for eqn in _jax.inlined(closed).jaxpr.eqns if _jax.scan_length(eqn) is None]
    made = sum(nbytes([v.aval for v in eqn.outvars if is_inexact(v.aval)]) for eqn in straight)
    arrays = all(is_array(leaf) or isinstance(leaf, float) for leaf in jax.tree.leaves(tuple(args)))
    return Features(loops, tuple(names), not loops or made > MUCH * temp, arrays)


MUCH = 0.25  # of a gradient's temporary memory: so much must be computed outside loops to be cut into parts

PLAIN = Candidate("plain", "loss", lambda loss: loss)
PARTS = (2, 4, 8, 16)


def candidates(found: Features, target: Target) -> list[Candidate]:
    """Those without a number to be found, plain left out."""
    made: list[Candidate] = []
    policies = [*POLICIES, *named_policies(found.names)] + (offloading(found.names) if target.platform in HOSTS else [])
    if found.loops:
        made += [Candidate(f"{name}, loop bodies", *_over_bodies(code, policy)) for name, code, policy in policies]
        made += [
            Candidate("two passes", "adcost.checkpointed(loss)", checkpointed),
            Candidate("sqrt", "adcost.checkpointed(loss, adcost.sqrt)", lambda loss: checkpointed(loss, sqrt)),
        ]
        if target.platform in HOSTS:
            code = "adcost.checkpointed(loss, lambda n: adcost.sqrt(n).on_host())"
            made.append(Candidate("sqrt, slots on the host", code, lambda loss: checkpointed(loss, _sqrt_on_host)))
    if found.straight:
        made += [Candidate(f"{name}, whole", *_over_all(code, policy, found.arrays)) for name, code, policy in policies]
        made.append(Candidate("in parts", "adcost.in_parts(loss)", in_parts))
        made += [Candidate(f"{n} parts", f"adcost.in_parts(loss, {n})", partial(_in_parts, n)) for n in PARTS]
    return made


HOSTS = ("cuda", "tpu")  # platforms whose programs can move values to the host's memory

# Policies of jax.checkpoint: a name for people, the code, the policy itself.

Policy = tuple[str, str, Any]
_policies = jax.checkpoint_policies


def _policy(name: str, attribute: str) -> Policy:
    return name, f"jax.checkpoint_policies.{attribute}", getattr(_policies, attribute)


NOTHING = "keep nothing"
POLICIES = [
    _policy(NOTHING, "nothing_saveable"),
    _policy("keep products", "dots_saveable"),
    _policy("keep products without batch", "dots_with_no_batch_dims_saveable"),
]


def named_policies(names: Sequence[str]) -> list[Policy]:
    """Of a program that names values: keep those alone, together and each."""
    groups = [tuple(names), *((name,) for name in names if len(names) > 1)] if names else []
    return [
        (
            f"keep {', '.join(group)}",
            f"jax.checkpoint_policies.save_only_these_names{_tuple_code(group)}",
            _policies.save_only_these_names(*group),
        )
        for group in groups
    ]


def offloading(names: Sequence[str]) -> list[Policy]:
    """Move to the host what would be kept: products, and values that have names."""
    places = "'device', 'pinned_host'"
    made: list[Policy] = [
        (
            "products to the host",
            f"jax.checkpoint_policies.offload_dot_with_no_batch_dims({places})",
            _policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
        )
    ]
    if names:
        given: dict[str, Any] = {
            "names_which_can_be_saved": [],
            "names_which_can_be_offloaded": list(names),
            "offload_src": "device",
            "offload_dst": "pinned_host",
        }
        options = ", ".join(f"{name}={value!r}" for name, value in given.items())
        code = f"jax.checkpoint_policies.save_and_offload_only_these_names({options})"
        made.append((f"{', '.join(names)} to the host", code, _policies.save_and_offload_only_these_names(**given)))
    return made


def _tuple_code(words: Sequence[str]) -> str:
    return f"({', '.join(map(repr, words))})"


def _over_bodies(code: str, policy: Any) -> tuple[str, Callable[[Loss], Loss]]:
    return f"adcost.checkpointed(loss, policy={code})", lambda loss: checkpointed(loss, policy=policy)


def _over_all(code: str, policy: Any, arrays: bool) -> tuple[str, Callable[[Loss], Loss]]:
    def apply(loss: Loss) -> Loss:
        def run(*args: Any) -> Any:
            of_its_arrays, given = of_arrays(loss, args, {})
            return jax.checkpoint(of_its_arrays, policy=policy)(*given)

        return run

    # jax.checkpoint takes arrays alone.
    return f"{'jax.checkpoint' if arrays else 'equinox.filter_checkpoint'}(loss, policy={code})", apply


def _sqrt_on_host(length: int) -> Schedule:
    return sqrt(length).on_host()


def _in_parts(parts: int, loss: Loss) -> Loss:
    return in_parts(loss, parts)


# Schedules in a share of the memory between the least and plain's.

WHOLE = 2**20  # shares are counted in parts of this


def schedules(loss: Loss, args: Sequence[Any], share: int, worth: int) -> dict[int, Schedule]:
    """By its length, of each loop the schedule in a share of what lies between the least it can do with and plain's.

    Loops that keep less than ``worth`` bytes stay as they are; of loops of one length the one with most evaluations
    to spare decides.
    """
    found: dict[int, Schedule] = {}

    def decide(parts: _jax.Scan, _: int) -> Schedule | str:
        length = parts.length
        if length < 2:
            return "it is short"
        try:
            kept, inputs, carry = step_bytes(loop_of(parts, blocks(length)))
        except (ValueError, NotImplementedError) as error:
            return _jax.first_line(error)
        if not carry or length * kept < worth:
            return "it keeps little"
        each = (kept + inputs) / carry
        least, most = (blocks(length, 1, 1, tail).memory(each) for tail in (1, length))
        made = within(length, least + max(0.0, most - least) * share / WHOLE, each)
        if length not in found or made.taped_evaluations < found[length].taped_evaluations:
            found[length] = made
        return found[length]

    Checkpointed(loss, decide).loops(*args)
    return found


def scheduled_candidate(made: Mapping[int, Schedule]) -> Candidate:
    """Loops of these lengths by these schedules."""
    code = ", ".join(f"{length}: {schedule_code(schedule)}" for length, schedule in made.items())
    return Candidate(
        "; ".join(f"blocks of {s.block}, {s.slots} slots, tail {s.tail}" for s in made.values()),
        f"adcost.checkpointed(loss, {{{code}}}.get)",
        lambda loss: checkpointed(loss, dict(made).get),
    )


def schedule_code(schedule: Schedule) -> str:
    """What makes a schedule of blocks."""
    return f"adcost.blocks({schedule.depth}, {schedule.slots}, {schedule.block}, {schedule.tail})"
