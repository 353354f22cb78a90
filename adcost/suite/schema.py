"""The form of results, and what no number of a result can be: docs/results.md says the same in words.

What is read from a file is held against both, a record at a time: one that is refused costs itself.
"""

import re
from collections.abc import Iterator
from functools import cache
from math import isfinite
from typing import Any

import msgspec

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Number
from adcost.targets import ANY, named

SCHEMA = 1  # goes up when a reader of the one before would misread a file
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
SIGNED = ("process", "limited", "asv")  # rulers of memory that give a difference of two readings
MAY_BE_NAN = {("check", "gradient error")}  # the result itself was NaN: that is what was found


def record_of(fields: Any) -> Record:
    """The record with these fields, as ``dataclasses.asdict`` and JSON wrote them.

    Raises
    ------
    ValueError
        If a field is missing, of another type, or holds what it cannot: one line that names the case and the field.
    """
    for part in ("numbers", "missing"):
        if isinstance(fields, dict) and part not in fields:
            raise ValueError(f"{_named(fields)}: it has no field {part!r}")
    try:
        record = msgspec.convert(fields, Record)
    except msgspec.ValidationError as error:
        raise ValueError(f"{_named(fields)}: {_in_words(str(error))}") from None
    for doubt in doubts(record):
        raise ValueError(f"{record.case.id}: {doubt}")
    return record


def doubts(record: Record) -> Iterator[str]:
    """What in a record cannot be."""
    if record.case.dtype not in DTYPES:
        yield f"case.dtype is {record.case.dtype!r}, which is none of {', '.join(DTYPES)}"
    for name, value in record.case.params:
        if isinstance(value, str) and not re.fullmatch("[a-z]+", value):
            yield f"case.params: {name} is {value!r}, which is neither a whole number nor a word"
    if not _is_target(record.target):
        yield f"target is {record.target!r}, which there is not"
    for i, number in enumerate(record.numbers):
        for field, doubt in _doubts(number):
            yield f"numbers[{i}].{field} ({number.ruler}, {number.quantity}) is {doubt}"
    for name, samples in (("samples", record.samples), ("again", record.again)):
        if any(not isfinite(one) or one <= 0 for rounds in samples for one in rounds):
            yield f"{name} holds a time that is not above 0"


@cache
def _is_target(name: str) -> bool:
    try:
        return name == ANY or bool(named(name))
    except ValueError:
        return False


def _doubts(number: Number) -> Iterator[tuple[str, str]]:
    value, kind = number.value, (number.ruler, number.quantity)
    if not isfinite(value) and kind not in MAY_BE_NAN:
        yield "value", f"{value}, which is no number"
    if number.unit == "s" and value <= 0:
        yield "value", f"{value:g}, and a time is above 0"
    if (
        (number.unit in ("B", "flop") and number.ruler not in SIGNED) or number.quantity == "gradient error"
    ) and value < 0:
        yield "value", f"{value:g}, and that is never below 0"
    if number.repeats < 1:
        yield "repeats", f"{number.repeats}"
    least = max(value, 0.0) if number.ruler in SIGNED else value  # theirs was cut at 0 before adcost 0.8
    if number.low is not None and not number.low <= least:
        yield "low", f"{number.low:g}, and does not bound the value {value:g}"
    if number.high is not None and not number.high >= value:
        yield "high", f"{number.high:g}, and does not bound the value {value:g}"


def _named(fields: Any) -> str:
    """The case that a record is of, as far as its fields tell."""
    try:
        case = msgspec.convert(fields["case"], Case)
    except (KeyError, TypeError, msgspec.ValidationError):
        return "a record of no known case"
    return case.id


def _in_words(said: str) -> str:
    """What msgspec says, its path in front: ``numbers[3].value: expected `float`, got `str```."""
    what, _, path = said.partition(" - at `$")
    place = path.strip("`.")
    return f"{place}: {what}" if place else what


def as_json_schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return msgspec.json.schema(Record)
