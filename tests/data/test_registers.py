"""Registers with subregisters, and the labels of a row."""

import pytest

from utils.data.registers import LabelError, Registers, parse_registers

NESTED = {
    "IN": {"name": "Informational", "sub": {"dt": "Description of a thing", "dp": "Description of a person"}},
    "NA": {"name": "Narrative", "sub": {"ne": "News report", "dp": "Description of a person"}},
    "OP": "Opinion",
    "News report": "with blanks",
}


@pytest.fixture
def registers() -> Registers:
    return parse_registers(NESTED)


def test_subregisters_follow_their_register(registers):
    assert registers.all == ["IN", "dt", "dp", "NA", "ne", "OP", "News report"]
    assert registers.main == ["IN", "NA", "OP", "News report"]
    assert registers.names["dt"] == "Description of a thing" and registers.names["OP"] == "Opinion"
    assert registers.children("IN") == ["dt", "dp"] and registers.children("NA") == ["dp", "ne"]
    assert registers.children("OP") == []


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("OP", ["OP"]),
        ("NA OP", ["NA", "OP"]),
        ("OP  NA", ["NA", "OP"]),
        ("ne", ["NA", "ne"]),
        ("ne OP ne", ["NA", "ne", "OP"]),
        ("IN dp", ["IN", "dp"]),
        ("dp NA IN", ["IN", "dp", "NA"]),
        ("News report", ["News report"]),
    ],
)
def test_the_labels_of_a_row(registers, cell, labels):
    assert registers.read(cell) == labels


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "no register"),
        ("op", "unknown register 'op'"),
        ("OP xx", "unknown register 'xx'"),
        ("dp", "dp stands under IN and NA: say which, as in IN dp"),
        ("OP dp", "dp stands under IN and NA"),
    ],
)
def test_what_is_no_label(registers, cell, message):
    with pytest.raises(LabelError, match=message):
        registers.read(cell)


def test_the_first_level(registers):
    assert registers.lift(registers.read("ne dt OP")) == ["IN", "NA", "OP"]


def test_which_register_a_subregister_cannot_be_without(registers):
    """Not one that stands under several, and none that a model does not know."""
    assert registers.within(registers.all) == {"dt": "IN", "ne": "NA"}
    assert registers.within(["IN", "dt", "ne"]) == {"dt": "IN"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["IN"], "expected an object"),
        ({"IN": 1}, "IN: expected a name, or "),
        ({"IN": {"sub": {}}}, "IN: expected a name, or "),
        ({"IN": {"name": "x", "subs": {}}}, "IN: expected a name, or "),
        ({"IN": {"name": "x", "sub": {"a": 1}}}, "IN: expected a name, or "),
        ({"IN": {"name": "x", "sub": {"OP": "y"}}, "OP": ""}, "OP is a register and a subregister of IN"),
        ({"IN": {"name": "x", "sub": {"IN": "y"}}}, "IN is a register and a subregister of IN"),
    ],
)
def test_a_file_of_another_form(content, message):
    with pytest.raises(ValueError, match=message):
        parse_registers(content)
