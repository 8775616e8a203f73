# PYTHON_ARGCOMPLETE_OK
"""Bring texts into the layout of register-corpus, which the other scripts read.

    python convert_corpus.py --input texts.csv --lang en --language_name english --corpus_path my-corpus
    python convert_corpus.py --input folder --lang en --language_name english --corpus_path my-corpus
    python convert_corpus.py --input OWNER/DATASET --lang en --register_column label --corpus_path my-corpus

Reads a table (.csv, .tsv, .jsonl, .parquet) with a column of texts and one of registers; a folder with a folder of .txt
files for each register; a folder with the files train and test; or a dataset of the hub. Where there is no test part, a
fifth of the texts becomes one. A language is added to the corpus; the others stay as they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.cli.options import DATA, EFFORT, PLACE, PLACES, CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.conversion import TEST, TRAIN, describe, read_texts, split_test, write_language
from utils.runs.files import check_writable
from utils.runs.layout import check_lang


@dataclass(kw_only=True)
class ConvertOptions(CommonOptions):
    """The options of convert_corpus.py."""

    GROUP: ClassVar[str] = DATA
    GROUP_TITLES: ClassVar[dict[str, str]] = {DATA: "what to convert"}

    input: str = option(help="a table, a folder, or the id of a dataset of the hub", metavar="PATH")
    lang: str = option(help="abbreviation of the language: letters, digits and '_'", metavar="LANG")
    language_name: str | None = option(None, "what it is called; without it as its abbreviation", metavar="NAME")
    text_column: str = option("text", "of a table, with the texts", metavar="COLUMN")
    register_column: str = option("register", "of a table, with the registers", metavar="COLUMN")
    test_size: float = option(
        0.2, "part of the texts, or number of them, to test on, where there is no test part", above=0
    )
    corpus_path: str = option(
        help="the corpus to add the language to; it is made if it is not there", role=PLACE, group=PLACES, metavar="DIR"
    )
    force: bool = option(False, "replace a language that is there", role=EFFORT)


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(ConvertOptions, __doc__)
    lang, root = check_lang(options.lang), Path(options.corpus_path)
    splits = read_texts(options.input, options.text_column, options.register_column)
    if TEST not in splits:
        splits = split_test(splits[TRAIN], options.test_size, options.seed)
    check_writable(root, options="--corpus_path")
    written = write_language(root, lang, options.language_name or lang, splits, options.force)
    print("\n".join([*describe(splits), *(f"written  {path}" for path in written)]))
    print(f"next     python check_corpus.py --corpus_path {root}")
    return 0


if __name__ == "__main__":
    run_script(main)
