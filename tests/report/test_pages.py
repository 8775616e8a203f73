"""corpus-report.html, and the report's page of explanations, in a real browser."""

import json

import pytest

import check_corpus
import post_eval
from tests.factories import LANGS, write_results
from utils.runs.files import write_json

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title = 'taken'</script>"


@pytest.fixture
def page(browser):
    """An empty page that must not report an error."""
    problems = []
    opened = browser.new_page()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield opened
    assert problems == []
    opened.close()


def write_hostile(folder):
    """A corpus whose names, labels and texts are markup, with a text that is there twice."""
    (folder / "info").mkdir(parents=True)
    (folder / "info" / "reg_abbv.json").write_text(json.dumps({"<b>": HOSTILE, "OP": "Opinion"}))
    (folder / "info" / "lang2name.json").write_text(json.dumps({"en": HOSTILE}))
    texts = [
        f"{HOSTILE} number {number} of the texts about {'rivers' if number % 2 else 'hats'}" for number in range(30)
    ]
    rows = [(("<b>", "OP")[number % 2], text) for number, text in enumerate(texts)]
    for split, own in (("train", [*rows, ("OP", texts[0])]), ("test", rows[:4])):
        path = folder / "corpus" / split / "en.tsv"
        path.parent.mkdir(parents=True)
        lines = ['{}\t"{}"\n'.format(label, text.replace('"', '""')) for label, text in own]
        path.write_text("".join(lines))
    return folder


def test_the_page_of_a_corpus(tmp_path, monkeypatch, invoke, page):
    monkeypatch.chdir(tmp_path)
    status, _, errors = invoke(check_corpus, "--corpus_path", write_hostile(tmp_path / "corpus"))
    assert status == 0, errors
    page.goto((tmp_path / "outputs" / "corpus-report.html").as_uri())
    assert page.title() == "Texts and labels of corpus"
    assert page.locator("img[src=x]").count() == 0 and page.locator("main script").count() == 0
    assert page.locator("img").count() >= 3
    table = page.locator("table.sortable").first
    first = table.locator("tbody tr").first
    assert "en train 1" in first.inner_text() and "en train 31" in first.inner_text()
    assert "<script>" in first.inner_text()
    # Sorting by the similarity, upwards.
    head = table.locator("thead th").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    shown = [float(text) for text in table.locator("tbody tr td:first-child").all_inner_texts()]
    assert head.get_attribute("aria-sort") == "ascending" and shown == sorted(shown)
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= 360")


def test_the_page_of_explanations(tmp_path, monkeypatch, invoke, page):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "outputs", "mbert", "en", LANGS[:3])
    write_results(tmp_path / "outputs", "xlmr", "en", LANGS[:3])
    folder = tmp_path / "outputs" / "xlmr-en" / "explanations"
    test = {
        "comprehensiveness": 0.4, "sufficiency": 0.1, "random_comprehensiveness": 0.05, "random_sufficiency": 0.3,
        "gain": 0.35, "interval": [0.3, 0.4], "faithful": True,
    }  # fmt: skip
    texts = [
        {
            "row": 7,
            "true": "A",
            "predicted": "B",
            "probability": 0.9,
            "words": [["", "The", 0.0], [" ", HOSTILE, 0.8], [" ", "hat", -0.4]],
        }
    ]
    content = {"method": "integrated_gradients", "num_texts": 9, "faithfulness": test, "texts": texts}
    row = {"score": 0.5, "document_frequency": 4, "num_texts": 6, "stability": 1, "num_runs": 3, "example": HOSTILE}
    keywords = [{"register": "B", "word": word, **row} for word in (HOSTILE, "=1+1")]
    write_json(folder / "fr.json", content | {"keywords": keywords})
    write_json(folder / "en.json", content | {"keywords": [], "faithfulness": test | {"faithful": False}})
    status, _, errors = invoke(post_eval, "--corpus_path", write_hostile(tmp_path / "corpus"))
    assert status == 0, errors
    report = tmp_path / "outputs" / "report.html"
    page.goto(f"{report.as_uri()}#explanations")
    assert page.locator("#pages a[aria-current]").inner_text() == "Explanations"
    assert "Not faithful, do not interpret" in page.locator("p.warning").inner_text()
    assert page.locator(".explained").count() == 0
    page.select_option("#explained-lang", "fr")
    assert "Faithful: deleting the highest 10 %" in page.locator("main").inner_text()
    cells = page.locator("#keywords tbody tr").all_inner_texts()
    assert len(cells) == 2 and any("<script>" in text for text in cells) and any("=1+1" in text for text in cells)
    # With the texts, whose words are colored.
    assert invoke(post_eval, "--show_texts", "--corpus_path", tmp_path / "corpus")[0] == 0
    page.goto(f"{report.as_uri()}?#explanations")
    words = page.locator(".explained .words span")
    assert words.count() == 3 and words.nth(1).inner_text() == HOSTILE
    assert "230, 97, 1" in words.nth(1).evaluate("node => getComputedStyle(node).backgroundColor")
    assert "43, 108, 176" in words.nth(2).evaluate("node => getComputedStyle(node).backgroundColor")
    words.nth(1).hover()
    assert page.locator("#tip").inner_text() == "+0.8"
    assert page.locator("img[src=x]").count() == 0 and page.title() == "Evaluation results"
