# PYTHON_ARGCOMPLETE_OK
"""Check whether the texts and labels of a corpus are sound, before anything is trained on it.

    python check_corpus.py
    python check_corpus.py --langs sv fr --model_name xlmr
    python check_corpus.py --langs sv fr --prune 0.05
    python check_corpus.py --langs sv fr --with_model xlmr-sv-fr
    python check_corpus.py --task sentiment

Finds texts that are there twice, nearly or exactly, and in training as well as in test files; labels that are probably
wrong; broken, empty and foreign texts; registers with too few texts. Writes corpus.json and corpus-report.html below
the output folder, with --prune also excluded.jsonl, which `finetune.py --exclude` reads.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.source import TextSource, open_texts
from utils.errors import UserError
from utils.figures.names import NO_NAMES, load_names
from utils.jobs.folds import FoldRuns
from utils.quality.options import CheckOptions
from utils.runs.files import check_writable, now, write_json

if TYPE_CHECKING:
    from utils.quality.doubtful import Doubts
    from utils.quality.rows import Rows


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(CheckOptions, __doc__)
    texts, langs = find_texts(options)
    output = Path(options.output_dir)
    runs = FoldRuns(options, texts) if options.with_model else None
    check_writable(output)
    if runs and (options.submit or options.status):
        return runs.submit()
    if runs:
        runs.run()

    from utils.data.exclusions import write_exclusions
    from utils.quality.summary import describe_findings, excluded_rows
    from utils.report.corpus import write_corpus_report

    content, rows, doubts = check(options, texts, langs, runs)
    names = NO_NAMES if options.task else load_names(options.corpus_path)
    write_json(output / "corpus.json", content)
    page = write_corpus_report(output / "corpus-report.html", content, rows, names)
    print("\n".join(describe_findings(content)))
    print(f"findings  {output / 'corpus.json'}\npage      {page}")
    if options.prune is not None:
        left_out = excluded_rows(rows, doubts, options.prune)
        write_exclusions(output / "excluded.jsonl", left_out)
        print(f"rows to train without  {output / 'excluded.jsonl'} ({len(left_out):,}; finetune.py --exclude)")
    return 0


def find_texts(options: CheckOptions) -> tuple[TextSource, list[str]]:
    """Return the texts, with one label each or several, as their training files have it; and the languages."""
    texts = open_texts(options, options.langs)
    known = {split: texts.languages(split) for split in ("train", "test")}
    langs = list(dict.fromkeys(options.langs or [*known["train"], *known["test"]]))
    if not langs:
        raise UserError(f"no texts in {texts.name}")
    for lang in langs:
        if lang not in known["train"]:
            texts.require("test", [lang])
    return texts.with_labels("auto", [lang for lang in langs if lang in known["train"]]), langs


def check(
    options: CheckOptions, texts: TextSource, langs: list[str], runs: FoldRuns | None
) -> tuple[dict[str, Any], "Rows", "Doubts"]:
    """Return the content of corpus.json, the rows that it is about, and what is thought of their labels."""
    from utils.quality import summary
    from utils.quality.doubtful import find_doubts
    from utils.quality.duplicates import find_duplicates
    from utils.quality.rows import TEST, TRAIN, read_rows
    from utils.runs.record import library_versions

    rows = read_rows(texts, langs, options.num_workers)
    twins = find_duplicates(rows, options.near)
    if runs:
        # Labels as the model takes them.
        texts = texts.with_labels(runs.labels, runs.langs)
    given = runs.probabilities if runs else None
    doubts = find_doubts(rows, texts, langs, twins.clusters, options.folds, options.seed, given)
    lengths = count_tokens(options, texts, langs) if options.model_name else {}
    leakage = summary.describe_leakage(rows, twins, langs)
    judged = runs.name if runs else "TF-IDF and logistic regression"
    content = {
        "corpus": texts.name,
        "files": [
            file for split in (TRAIN, TEST) for lang in langs if lang in texts.languages(split)
            for file in texts.provenance(split, [lang])
        ],
        "created": now(),
        "versions": library_versions(),
        "near": options.near,
        "seed": options.seed,
        "folds": options.folds,
        "num_texts": len(rows),
        "num_judged": len(doubts.rows),
        "labels_judged_by": judged if len(doubts.rows) else None,
        "duplicates": summary.describe_duplicates(rows, twins),
        "leakage": {lang: round(found["share"], 6) for lang, found in leakage.items()},
        "leaking": leakage,
        "doubtful": summary.describe_doubts(rows, doubts),
        "languages": {
            lang: summary.describe_language(rows, lang, lengths.get(lang), texts.label_names([lang])) for lang in langs
        },
    }  # fmt: skip
    return content, rows, doubts


def count_tokens(options: CheckOptions, texts: TextSource, langs: list[str]) -> dict[str, dict[str, Any]]:
    """Return the lengths of texts in a model's tokens, by language and split; training finds them in the cache."""
    import numpy as np

    from utils.data.tokenization import load_tokenizer, separator, tokenize, with_padding
    from utils.models.loading import choose_max_length, load_config
    from utils.models.registry import find_model, resolve_checkpoint

    spec = find_model(options.model_name, options.model_registry)
    folder = resolve_checkpoint(spec)
    tokenizer = with_padding(load_tokenizer(folder))
    max_length = choose_max_length(load_config(folder), spec.max_length)
    found: dict[str, dict[str, Any]] = {lang: {} for lang in langs}
    for split in ("train", "test"):
        for lang in (lang for lang in langs if lang in texts.languages(split)):
            loaded = texts.load(split, lang, separator(tokenizer))
            tokens = tokenize(loaded, tokenizer, max_length, Path(options.cache_dir))
            columns = {name: np.asarray(tokens[name][:]) for name in ("length", "cut")}
            found[lang][split] = columns | {"max_length": max_length}
    return found


if __name__ == "__main__":
    run_script(main)
