"""Fixtures of predict.py's tests."""

from pathlib import Path

import pytest

from tests.factories import Inputs
from tests.labels import texts_of_all_lengths, write_jsonl


@pytest.fixture
def corpus(model) -> Inputs:
    """Files of three languages in several formats, some empty, some larger than a part."""
    rows = [{"text": text, "url": f"u{number}"} for number, text in enumerate(texts_of_all_lengths(90))]
    write_jsonl(Path("corpus/eng/1.jsonl.zst"), rows)
    write_jsonl(Path("corpus/eng/2.jsonl"), texts_of_all_lengths(35, 1))
    Path("corpus/fin").mkdir()
    Path("corpus/fin/1.txt").write_text("\n".join(texts_of_all_lengths(61, 2)))
    Path("corpus/fin/2.txt").write_text("")
    test = (model.corpus / "corpus/test/es.tsv").read_text(encoding="utf-8")
    Path("corpus/es.tsv").write_text(f"label\ttext\n{test}", encoding="utf-8")
    return model
