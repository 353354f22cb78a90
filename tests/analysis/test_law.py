"""The law of time with traffic."""

from analysis import law


def test_without_the_method_that_fixes_what_memory_costs_there_is_no_law():
    """The quick profile may leave it out: `make report` goes on."""
    assert law.rows(None, "plain", "two_passes", {"sqrt": None}, 0) == []
