# PYTHON_ARGCOMPLETE_OK
"""Explain what a classifier's predictions are made of: the words of its test texts, and the keywords of registers.

    python explain.py --model_name xlmr --train_langs en-fr --langs en fr
    python explain.py --model_name xlmr --train_langs en-fr --langs all --num_texts 200 --method occlusion
    python explain.py --model_name xlmr --train_langs en-fr --subfolder seed1 --langs en --seeds --show_texts

Writes explanations/LANG.json, keywords.csv and a figure for each register below outputs/[SUBFOLDER/]MODEL-LANGS, which
the report of post_eval.py shows. Every run says whether its explanations are faithful: whether deleting the words that
they name changes the predictions more than deleting others.
"""

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.source import TextSource, open_texts
from utils.errors import UserError
from utils.evaluation.seeds import find_groups
from utils.evaluation.trained import expand_langs, find_trained
from utils.explanation.files import keyword_rows, read_explanations, write_keywords
from utils.explanation.options import ExplainOptions
from utils.figures.drawing import Drawing, draw_all
from utils.figures.names import NO_NAMES, Names, load_names
from utils.runs.files import check_writable, now, write_json
from utils.runs.layout import RunLayout
from utils.training.classifier_options import FREE_OPTIONS

if TYPE_CHECKING:
    from utils.explanation.results import LanguageResult


def main() -> int:
    """Run the script; returns 1 if a language failed."""
    options, layout = find_trained(parse_options(ExplainOptions, __doc__))
    texts = open_texts(options, None)
    langs = expand_langs(options.langs, texts)
    runs = find_runs(options, layout)
    check_writable(layout.explanations)
    found: dict[str, list[LanguageResult]] = {}
    failures: dict[str, str] = {}
    for run in runs:
        explain_run(options, run, texts, langs, found, failures)
    if found:
        write(options, layout, runs, found)
    for lang, reason in failures.items():
        print(f"explain.py: error: {lang} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def find_runs(options: ExplainOptions, layout: RunLayout) -> list[RunLayout]:
    """Return the runs to explain: the one that was named, and with --seeds those that differ by their seed alone."""
    if not options.seeds:
        return [layout]
    for group in find_groups(Path(options.output_dir), FREE_OPTIONS):
        folders = [run.folder for run in group.runs.values()]
        if layout.outputs in folders:
            others = [folder for folder in folders if folder != layout.outputs]
            return [layout, *(layout_at(folder, options) for folder in others)]
    raise UserError(f"--seeds: no other evaluated run differs from {layout.outputs} by its --seed alone")


def layout_at(folder: Path, options: ExplainOptions) -> RunLayout:
    """Return the layout of a run of the same name in another subfolder."""
    below = folder.parent.relative_to(options.output_dir).as_posix()
    return RunLayout(options.model_name, options.train_langs, below, options.output_dir, options.models_dir)


def explain_run(
    options: ExplainOptions,
    run: RunLayout,
    texts: TextSource,
    langs: list[str],
    found: dict[str, list["LanguageResult"]],
    failures: dict[str, str],
) -> None:
    """Explain a model's predictions in all languages; a language that fails costs no other."""
    from utils.evaluation.inference import Classifier
    from utils.explanation.attribution import Explainer
    from utils.explanation.faithfulness import describe
    from utils.explanation.results import explain_language

    classifier = Classifier(run.model, options.precision)
    explainer = Explainer(classifier, options.method, options.steps, options.eval_token_budget)
    source = texts.as_labelled(classifier.labelling.multilabel, classifier.labels)
    for lang in langs:
        try:
            result = explain_language(explainer, source, lang, run.name, options.num_texts, options.seed)
        except UserError as error:
            if options.debug:
                raise
            failures[lang] = str(error)
            continue
        found.setdefault(lang, []).append(result)
        content = result.content
        left_out = f", {content['num_left_out']} too long or without words" if content["num_left_out"] else ""
        print(f"{lang}: {content['num_texts']} texts of {run.outputs}{left_out}")
        if content["num_incomplete"]:
            print(
                f"{lang}: warning: of {content['num_explanations']} explanations, the scores of "
                f"{content['num_incomplete']} do not add up to the logit within 5 %"
            )
        print(f"{lang}: {describe(content['faithfulness'])}", flush=True)


def write(
    options: ExplainOptions, layout: RunLayout, runs: list[RunLayout], found: dict[str, list["LanguageResult"]]
) -> None:
    """Write the explanations, the keywords and their figures; say where they are."""
    from utils.explanation.keywords import keywords

    for lang, results in found.items():
        about = {
            "model": layout.model_name,
            "train_langs": layout.train_langs,
            "runs": [str(run.outputs) for run in runs],
        }
        shown = {"texts": results[0].texts} if options.show_texts else {}
        content = about | results[0].content | {"seed": options.seed, "created": now()} | shown
        content["faithfulness_of_runs"] = [result.content["faithfulness"] for result in results]
        registers = dict.fromkeys(register for result in results for register in result.scored)
        content["keywords"] = [
            {"register": register} | row
            for register in registers
            for row in keywords([result.scored.get(register, []) for result in results])
        ]
        write_json(layout.explanations / f"{lang}.json", content)
    print(f"explanations  {layout.explanations}")
    # Of the languages that were explained before, too.
    rows = keyword_rows(read_explanations(layout.explanations))
    print(f"keywords      {write_keywords(layout.explanations / 'keywords.csv', rows)}")
    for path in draw_keywords(rows, layout, NO_NAMES if options.task else load_names(options.corpus_path)):
        print(f"figure        {path}")
    print("the report of post_eval.py shows them")


def draw_keywords(rows: list[dict[str, Any]], layout: RunLayout, names: Names) -> list[Path]:
    """Draw a figure for each register; returns the files that were written."""
    from utils.figures.keywords import keywords_figure

    drawings = []
    for register in dict.fromkeys(row["register"] for row in rows):
        own = [row for row in rows if row["register"] == register]
        by_lang = {
            lang: [row for row in own if row["language"] == lang] for lang in dict.fromkeys(r["language"] for r in own)
        }
        make = functools.partial(keywords_figure, register, by_lang, names=names)
        drawings.append(Drawing(make, layout.explanations / f"keywords-{file_name(register)}", ["png"]))
    return draw_all(drawings)[0]


def file_name(register: str) -> str:
    """Return a register's name as a part of a file's."""
    return re.sub(r"[^\w.-]+", "_", register)


if __name__ == "__main__":
    run_script(main)
