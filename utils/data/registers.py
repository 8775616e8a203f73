"""Registers and their subregisters, and the labels of a text: one or several of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from utils.errors import nearest


class LabelError(ValueError):
    """What is wrong with the labels of a row."""


@dataclass(frozen=True)
class Registers:
    """The labels of a corpus, in their order: each register is followed by its subregisters.

    Attributes:
        names: of registers and subregisters, by abbreviation.
        parents: registers of each subregister; some stand under several.
    """

    names: dict[str, str]
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all(self) -> list[str]:
        """Registers and subregisters."""
        return list(self.names)

    @property
    def main(self) -> list[str]:
        """Registers of the first level."""
        return [name for name in self.names if name not in self.parents]

    def children(self, register: str) -> list[str]:
        """Return the subregisters of a register."""
        return [name for name, parents in self.parents.items() if register in parents]

    def read(self, cell: str) -> list[str]:
        """Return the labels that a row gives, each once and in their order, registers implied by subregisters included.

        Args:
            cell: abbreviations with blanks between them; of an abbreviation that has blanks itself, that one.

        Raises:
            LabelError: if one is not known, or a subregister stands under several registers and none of them is given.
        """
        given = {cell} if cell in self.names else set(cell.split())
        if not given:
            raise LabelError("no register")
        found = set(given)
        for label in sorted(given):
            if label not in self.names:
                raise LabelError(f"unknown register {label[:40]!r}{nearest(label, self.all)}")
            parents = self.parents.get(label, ())
            if len(parents) > 1 and not given.intersection(parents):
                raise LabelError(f"{label} stands under {' and '.join(parents)}: say which, as in {parents[0]} {label}")
            if len(parents) == 1:
                found.update(parents)
        return [name for name in self.names if name in found]

    def lift(self, labels: Iterable[str]) -> list[str]:
        """Return the registers of the first level among labels that `read` has returned."""
        return [label for label in labels if label not in self.parents]

    def within(self, labels: Iterable[str]) -> dict[str, str]:
        """Return the one register of each subregister among these labels, for subregisters that have only one."""
        known = set(labels)
        return {
            label: parents[0]
            for label, parents in self.parents.items()
            if len(parents) == 1 and label in known and parents[0] in known
        }


def parse_registers(content: Any) -> Registers:
    """Return the registers that info/reg_abbv.json names.

    Args:
        content: abbreviation -> name, or -> {"name": name, "sub": {abbreviation: name}}.

    Raises:
        ValueError: if it is of another form, with a sentence.
    """
    if not isinstance(content, dict):
        raise ValueError("expected an object of abbreviations and names")
    names: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for register, value in content.items():
        name, below = (value, {}) if isinstance(value, str) else _nested(register, value)
        names[register] = name
        for label, its_name in below.items():
            if label in content:
                raise ValueError(f"{label} is a register and a subregister of {register}")
            # Under several registers, it is called what the first one calls it.
            names.setdefault(label, its_name)
            parents[label] = (*parents.get(label, ()), register)
    return Registers(names, parents)


def _nested(register: str, value: Any) -> tuple[str, dict[str, str]]:
    expected = f'{register}: expected a name, or {{"name": a name, "sub": {{abbreviation: name}}}}'
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not set(value) <= {"name", "sub"}:
        raise ValueError(expected)
    below = value.get("sub", {})
    if not isinstance(below, dict) or not all(isinstance(name, str) for name in below.values()):
        raise ValueError(expected)
    return value["name"], below
