"""Templates of job scripts."""

import string
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError, nearest


def fill_template(path: Path, fields: dict[str, str], required: Iterable[str] = ()) -> str:
    """Fill the ``{fields}`` of a template, as `str.format` does; ``{{`` and ``}}`` stand for literal braces.

    Args:
        path: of the template.
        fields: what to fill in, as it shall stand in the script.
        required: fields that the template must have.

    Raises:
        UserError: if a field is missing or unknown, or a brace stands alone, naming template, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template {path}: cannot read it ({error})") from None
    found, filled = set(), []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"template {path}, line {number}"
        try:
            parts = list(string.Formatter().parse(line))
        except ValueError as error:
            raise UserError(f"{where}: {error}; literal braces are written twice, as in ${{{{HOME}}}}") from None
        for _, field, specification, conversion in parts:
            if field is None:
                continue
            if field not in fields or specification or conversion:
                raise UserError(
                    f"{where}: unknown field {{{field}}}{nearest(field, fields)}; give it with "
                    f"--template_fields.{field or 'NAME'}, or write literal braces twice, as in ${{{{HOME}}}}"
                )
            found.add(field)
        filled.append("".join(literal + fields.get(field or "", "") for literal, field, _, _ in parts))
    for field in required:
        if field not in found:
            raise UserError(f"template {path}: the field {{{field}}} is missing")
    return "\n".join(filled)
