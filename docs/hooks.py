"""What mkdocs.yml asks for: a changelog whose links hold, and pages that fetch nothing."""

from typing import Any

from mkdocs.utils import get_relative_url

# What the plugin offline has pages fetch, and our own instead.
FETCHED, OURS = "https://unpkg.com/iframe-worker/shim", "assets/offline-search.js"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text; docs/changelog.md is the repository's, whose links begin at the root."""
    return markdown.replace("](docs/", "](") if page.file.src_uri == "changelog.md" else markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return a page that searches without network, from a folder too."""
    return output.replace(FETCHED, get_relative_url(OURS, page.url))


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """Return the page that is shown for others that do not exist, likewise."""
    return output_content.replace(FETCHED, f"/{OURS}")
