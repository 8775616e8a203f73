"""HTML pages in one file each: template, styles and scripts of the project, and whatever they show."""

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).resolve().parent


def render(template: str, styles: tuple[str, ...], scripts: tuple[str, ...] = (), **values: Any) -> str:
    """Return a page.

    Args:
        template: its file.
        styles: files of the page's style.
        scripts: files of its script, in their order.
        values: what the template shows; text never becomes markup, unless it is `markupsafe.Markup`.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    own = {
        # The project's own files.
        name: Markup("\n".join((TEMPLATES / file).read_text(encoding="utf-8") for file in files))  # noqa: S704
        for name, files in (("css", styles), ("js", scripts))
    }
    return environment.get_template(template).render(**own, **values)
