"""The site of docs/: complete, without a warning, and read from a folder without network."""

import os
import re
import subprocess
import sys

import pytest

from tests.factories import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=PROJECT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert build.returncode == 0, build.stderr
    return folder


def test_pages_fetch_nothing(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)|<link[^>]* href="?([^" >]+)', text)
        outside = [url for pair in fetched for url in pair if url.startswith(("http:", "https:", "//"))]
        assert not outside, (page, outside)


@pytest.mark.parametrize(
    ("page", "word", "found"),
    [
        ("index.html", "stride", "how-to/language-models.html"),
        ("fr/index.html", "adaptateurs", "fr/how-to/adapters.html"),
    ],
)
def test_the_search_works_without_network(site, browser, page, word, found):
    window = browser.new_page()
    asked = []
    window.on("request", lambda request: asked.append(request.url) if request.url.startswith("http") else None)
    window.goto((site / page).as_uri())
    results = window.locator(f'.md-search-result__link[href*="{found}"]')
    for _ in range(20):
        # As people type; what is typed before the index is there is lost, and what follows an empty search at once too.
        window.wait_for_timeout(1000)
        window.fill("input.md-search__input", "")
        window.wait_for_timeout(500)
        window.locator("input.md-search__input").press_sequentially(word, delay=60)
        window.wait_for_timeout(1000)
        if results.count():
            break
    assert results.count()
    window.close()
    assert asked == []
