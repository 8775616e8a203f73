# PYTHON_ARGCOMPLETE_OK
"""Evaluate a fine-tuned classifier on one or many languages, loading it once.

    python evaluate.py --model_name xlmr --train_langs en-fr --eval_lang fr
    python evaluate.py --model_name xlmr --train_langs en-fr --eval_langs en fr tr
    python evaluate.py --model_name xlmr --train_langs en-fr --eval_langs all

What has been evaluated already, on the same test file, is skipped. Works without internet, from the folder
that finetune.py saved. Writes eval/LANG.json and predictions/LANG.csv below outputs/[SUBFOLDER/]MODEL-LANGS;
any number of evaluations may run at once.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.panels import next_command, show
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.cli.values import plural
from utils.data.source import TextSource, open_texts
from utils.errors import Interrupted, RunFailure, UserError
from utils.evaluation.clusters import clusters_of_corpus, clusters_of_twins, read_twins
from utils.evaluation.metrics import metric_title
from utils.evaluation.trained import expand_langs, find_trained, known_labels, load_test_texts
from utils.models.model_card import write_classifier_card
from utils.report.options import PostEvalOptions
from utils.runs.files import check_writable
from utils.runs.layout import RunLayout
from utils.runs.shapes import read_evaluation, read_record
from utils.training.classifier_options import EvaluateOptions, card_options

if TYPE_CHECKING:
    import numpy as np


def main() -> int:
    """Run the script; returns 1 if a language failed."""
    options, layout = find_trained(parse_options(EvaluateOptions, __doc__))
    texts = open_texts(options, None)
    langs = choose_langs(options, texts)
    twins = read_twins(options.clusters) if options.clusters else None
    check_writable(layout.outputs)
    if not options.force:
        langs = skip_evaluated(langs, layout, texts, options)
        if not langs:
            return 0

    evaluator = Evaluator(options, layout, texts, twins)
    if options.task is None:
        # A corpus has the same registers in all languages.
        known_labels(evaluator.texts, langs[0], evaluator.classifier, layout.name)
    failures: dict[str, str] = {}
    for lang in langs:
        try:
            print(evaluator.evaluate(lang), flush=True)
        except Interrupted as stop:
            left = langs[langs.index(lang) :]
            raise Interrupted(
                stop.signum,
                f"{stop} in the middle of {lang}; the same command evaluates what is left: {' '.join(left)}",
            ) from None
        except Exception as error:
            # One language's trouble must not cost the results of the others.
            if options.debug:
                raise
            failures[lang] = str(error) or type(error).__name__
    if len(failures) < len(langs):
        settings = (read_record(layout.run_json) or {}).get("options", {})
        card = write_classifier_card(layout, card_options(settings))
        lines = [
            f"metrics      {layout.outputs / 'eval'}\npredictions  {layout.outputs / 'predictions'}",
            f"model card   {card or 'left as it is'}",
            f"next         {next_command('post_eval.py', PostEvalOptions, options)}",
        ]
        show(f"{layout.name} is evaluated", "\n".join(lines))
    for lang, reason in failures.items():
        print(f"evaluate.py: error: {lang} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def choose_langs(options: EvaluateOptions, texts: TextSource) -> list[str]:
    """Return the languages to evaluate on, each once."""
    langs = [*([options.eval_lang] if options.eval_lang else []), *(options.eval_langs or [])]
    for lang in langs:
        if "-" in lang:
            parts = " ".join(lang.split("-"))
            raise UserError(f"a model is evaluated on one language at a time, got {lang!r}: --eval_langs {parts}")
    if not langs:
        raise UserError("give the languages to evaluate on with --eval_langs (or --eval_lang), for instance all")
    return expand_langs(langs, texts)


def skip_evaluated(langs: list[str], layout: RunLayout, texts: TextSource, options: EvaluateOptions) -> list[str]:
    """Return the languages without results on their present test texts; name the others.

    Args:
        langs: to evaluate on.
        layout: of the model's run.
        texts: to evaluate on.
        options: of the script; results without what they ask for besides are none.
    """
    left = []
    for lang in langs:
        try:
            result = read_evaluation(layout.eval_json(lang)) if layout.predictions_csv(lang).is_file() else None
        except UserError as error:
            print(f"{lang} is evaluated again: {error}", file=sys.stderr)
            result = None
        try:
            present = texts.provenance("test", [lang])[0]["sha256"] if result else None
        except (UserError, RunFailure):
            present = None
        lacking = result is not None and (
            (options.oracle_threshold and result.get("labels") == "multi" and "oracle" not in result)
            or (options.clusters is not None and "intervals" not in result)
        )
        if present is not None and result.get("data", {}).get("sha256") == present and not lacking:
            print(f"{lang}: evaluated already, {scores(result)} (--force repeats it)")
        else:
            left.append(lang)
    return left


class Evaluator:
    """One loaded model and what it takes to evaluate it on any language."""

    def __init__(self, options: EvaluateOptions, layout: RunLayout, texts: TextSource, twins: dict[str, Any] | None):
        from utils.evaluation.inference import Classifier

        self.options, self.layout, self.twins = options, layout, twins
        self.classifier = Classifier(layout.model, options.precision, options.temperature)
        self.labelling = self.classifier.labelling
        if options.oracle_threshold and not self.labelling.multilabel:
            raise UserError(f"--oracle_threshold: {layout.name} gives each text one label, without a threshold")
        self.texts = texts.as_labelled(self.labelling.multilabel, self.classifier.labels)

    def clusters(self, lang: str, num_texts: int) -> "np.ndarray | None":
        """Return the clusters of a language's texts, from --clusters or else from the corpus; None without."""
        if self.twins is not None:
            return clusters_of_twins(self.twins, lang, num_texts)
        return clusters_of_corpus(self.texts, lang)

    def evaluate(self, lang: str) -> str:
        """Evaluate on one language, write its files, return a line for the user."""
        from utils.data.tokenization import tokenize
        from utils.data.twins import leakage_warning, read_hashes, share_seen
        from utils.evaluation.results import write_evaluation
        from utils.models import device as machine

        classifier = self.classifier
        texts, labels = load_test_texts(self.texts, lang, classifier, self.layout.name)
        clusters = self.clusters(lang, len(labels))
        whole = classifier.reading.needs_whole_texts
        cache_dir = Path(self.options.cache_dir)
        dataset = tokenize(texts, classifier.tokenizer, classifier.max_length, cache_dir, whole)
        pieces = classifier.pieces(dataset)
        started = time.monotonic()
        logits = classifier.logits(pieces, self.options.eval_token_budget, lang)
        seconds = time.monotonic() - started
        reading = classifier.summary(texts, dataset, pieces, cache_dir)
        computed = {"number_format": classifier.precision, "device": machine.describe_device(classifier.device)}
        seen = read_hashes(self.layout.train_hashes)
        leakage = None if seen is None else share_seen(texts, seen)
        result = write_evaluation(
            self.layout,
            lang,
            labels,
            classifier.probabilities(logits),
            labelling=self.labelling,
            seconds=seconds,
            seed=self.options.seed,
            task=self.options.task,
            data=self.texts.provenance("test", [lang])[0],
            computed=computed | {"temperature": classifier.temperature, "reading": reading, "leakage": leakage},
            with_oracle=self.options.oracle_threshold,
            clusters=clusters,
        )
        lines = [f"{lang}: {plural(len(labels), 'text')}, {scores(result)}, {result['texts_per_second']:.1f} texts/s"]
        if "oracle" in result:
            lines.append(f"{lang}: {describe_oracle(result)}")
        if result["rare_registers"]:
            rare = ", ".join(f"{name} {count}" for name, count in result["rare_registers"].items())
            lines.append(f"{lang}: the interval is too narrow: under 10 texts of {rare}")
        warnings = [result.get("warning"), leakage_warning(leakage or 0.0, lang)]
        return "\n".join([*lines, *(f"{lang}: warning: {warning}" for warning in warnings if warning)])


def scores(result: dict[str, Any]) -> str:
    """Return what a line for the user says of a result."""
    first = "accuracy" if "accuracy" in result else "micro_f1"
    shown = f"{metric_title(first)} {result[first]:.3f}, macro F1 {result['macro_f1']:.3f}"
    interval = result.get("confidence_intervals", {}).get("macro_f1")
    return f"{shown} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else shown


def describe_oracle(result: dict[str, Any]) -> str:
    """Return what a line for the user says of the threshold that was chosen on the evaluated texts."""
    oracle = result["oracle"]
    return (
        f"chosen on these very texts, a threshold of {oracle['threshold']:.2f} would give micro F1 "
        f"{oracle['micro_f1']:.3f} (oracle, for comparison with papers) instead of {result['micro_f1']:.3f}"
    )


if __name__ == "__main__":
    run_script(main)
