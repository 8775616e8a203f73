"""Private names of libraries that the code depends on: each stands in CONTRIBUTING.md, and is there."""

import inspect
import re

import pytest

from tests.factories import PROJECT

TABLE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Private names of libraries")[2]
NAMES = re.findall(r"(?m)^\| `([\w.]+)` \|", TABLE)


def resolve(path):
    """Return what a dotted path names; attributes that instances get are looked for in the class's source."""
    parts = path.split(".")
    module, rest = __import__(parts[0]), parts[1:]
    found = module
    for index, part in enumerate(rest):
        if not hasattr(found, part) and not inspect.isclass(found):
            __import__(".".join(parts[: index + 2]))
        if not hasattr(found, part) and inspect.isclass(found):
            assert part in "\n".join(inspect.getsource(cls) for cls in found.__mro__[:-1]), path
            return None
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", NAMES)
def test_the_name_is_there(path):
    resolve(path)


def test_the_table_is_complete():
    """No underscore of another library is used that the table leaves out."""
    assert len(NAMES) > 8
    known = {path.rpartition(".")[2] for path in NAMES}
    used = {}
    for path in [*(PROJECT / "utils").rglob("*.py"), *PROJECT.glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        own = set(re.findall(r"(?m)(?:def |class |self\.|^    )(_\w+)(?=[(:]| =)", source))
        for name in re.findall(r"(?<!\w)(?:\w+|\))\.(_[a-z]\w*)", source):
            if name not in own and not name.startswith("__"):
                used.setdefault(name, path)
    assert set(used) <= known, set(used) - known
