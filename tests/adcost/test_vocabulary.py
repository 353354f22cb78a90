"""The vocabulary: identities, selection, limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcost.suite import registry
from adcost.suite.vocabulary import Case, case_from_id
from adcost.targets import parse_targets
from benchmarks import all_studies
from benchmarks.studies import backprop


def select(names, profile):
    return registry.select(all_studies(), names, profile)


names = st.from_regex(r"[a-z][a-z_0-9]{0,12}[a-z_]", fullmatch=True)
params = st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(0, 10**6)), max_size=4)


@given(names, names, params, st.sampled_from(["float32", "float64"]))
def test_an_id_is_an_identity(study, method, parameters, dtype):
    case = Case(study, method, tuple(parameters), dtype)
    assert case_from_id(case.id) == case


def test_what_is_no_id_is_refused():
    with pytest.raises(ValueError, match="is no case; a case reads like"):
        case_from_id("backprop")


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_ids_are_unique_and_limits_hold(profile):
    chosen = select("all", profile)
    assert len({case.id for case in chosen}) == len(chosen)
    mine = [case for case in chosen if case.study == "backprop"]
    depths = {method: {case["depth"] for case in mine if case.method == method} for method in backprop.METHODS}
    assert max(depths["vanilla"]) == 1024
    for bounded in ("memory_poor", "vanilla_unrolled", "jax_remat_unrolled"):
        measured = depths["vanilla"] if backprop.METHODS[bounded].followed else depths["jax_remat_layer"]
        assert depths[bounded] == {depth for depth in measured if depth <= 144}


def test_every_limit_has_its_reason():
    for study in all_studies().values():
        for method in study.methods.values():
            assert bool(method.limit) == bool(method.because)


def test_every_method_that_a_claim_follows_has_the_eight_depths_that_an_exponent_needs():
    depths = {}
    for case in select("backprop", "quick"):
        depths.setdefault(case.method, set()).add(case["depth"])
    assert min(len(found) for method, found in depths.items() if backprop.METHODS[method].followed) >= 8
    assert depths["equinox"] == {16, 144, 1024}  # beside them, fewer do
    full = select("backprop", "full")
    of_long_chains = {"binomial_50", "binomial_10_tape"}
    assert {case.method for case in full if case["depth"] == 64} == set(backprop.METHODS) - of_long_chains
    assert {case.method for case in full if case["depth"] == 1000} == set(backprop.ON_LONG)
    assert {case.method for case in full if case["width"] == backprop.WIDE["width"]} == set(backprop.ON_WIDE)


def test_the_last_size_of_every_method_is_an_end_in_each_profile():
    ends = list(backprop.STUDY.ends())
    for profile in ("quick", "full"):
        for name in {case.method for case in backprop.STUDY.cases(profile)}:
            assert [case for case in backprop.STUDY.cases(profile) if case.method == name][-1] in ends
    assert len(ends) <= 2 * len(backprop.METHODS)
    (study,) = (one for name, one in all_studies().items() if name == "advice")
    programs = {case.word("program") for case in study.cases("full")}
    assert {case.word("program") for case in study.ends()} == programs  # words tell kinds apart


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select("nonsense", "quick"), "unknown study 'nonsense'; choose from: advice, backprop"),
        (lambda: select("all", "slow"), "unknown profile 'slow'; choose one of: quick, full"),
        (lambda: parse_targets("cpu,abacus"), "unknown target 'abacus'; choose from: cpu"),
    ],
)
def test_unknown_names_get_one_line_that_lists_the_known(call, message):
    with pytest.raises(ValueError, match=message):
        call()
