"""Misclassified texts for the report: `post_eval.py --show_texts`."""

from typing import TYPE_CHECKING, Any

from utils.data.corpus_load import open_corpus
from utils.data.language_database import open_task
from utils.data.source import TextSource
from utils.errors import RunFailure, UserError
from utils.evaluation.labelling import label_matrix
from utils.evaluation.results import RunResults, load_predictions, order_langs
from utils.runs.shapes import read_record

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Texts of each evaluation, and characters of each text.
NUM_EXAMPLES = 5
NUM_CHARACTERS = 240


class TestTexts:
    """The test texts of a corpus or of tasks, each language loaded once.

    Args:
        corpus_path: of the register corpus.
    """

    # Not a test, whatever pytest makes of the name.
    __test__ = False

    def __init__(self, corpus_path: str):
        self.corpus_path = corpus_path
        self.loaded: dict[tuple[Any, ...], tuple[str, list[str]]] = {}

    def load(self, run: RunResults, lang: str) -> list[str]:
        """Return the texts that a run was evaluated on.

        Raises:
            UserError: if they are not there, or have changed since.
        """
        result = run.evaluations[lang]
        options = (read_record(run.folder / "run.json") or {}).get("options", {})
        task = result.get("task")
        key: tuple[Any, ...] = (lang, result.get("labels"), *result["registers"])
        if task:
            key += (task, options.get("model_type"), str(options.get("dataset")))
        if key not in self.loaded:
            source = self._task(task, lang, options) if task else open_corpus(self.corpus_path)
            source = source.as_labelled(result.get("labels") == "multi", result["registers"])
            self.loaded[key] = (
                source.provenance("test", [lang])[0]["sha256"],
                source.load("test", lang, " ")["text"][:],
            )
        sha256, texts = self.loaded[key]
        if result.get("data", {}).get("sha256") != sha256:
            raise UserError(f"--show_texts: the {lang} test texts are not those that {run.name} was evaluated on")
        return texts

    def _task(self, task: str, lang: str, options: dict[str, Any]) -> TextSource:
        return open_task(
            task,
            [lang],
            names=options.get("dataset"),
            model_type=options.get("model_type") or "normal",
            path=options.get("language_database"),
        )


def misclassified(run: RunResults, texts: TestTexts, problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the mistakes that a model was surest of, per evaluation language.

    A language whose texts are not there, or not those of the evaluation, is left out.

    Args:
        run: the results of one model.
        texts: where the texts are.
        problems: gets a message for every language that is left out.
    """
    found = {}
    for lang in order_langs(run, list(run.evaluations)):
        try:
            rows, test_texts = load_predictions(run.folder, lang), texts.load(run, lang)
            if len(rows) != len(test_texts):
                raise UserError(
                    f"--show_texts: {len(rows)} predictions of {run.name} for {len(test_texts)} {lang} texts"
                )
        except (UserError, RunFailure) as error:
            problems.append(str(error))
            continue
        rows["confidence"] = confidences(rows, run.evaluations[lang])
        wrong = rows[rows["true"] != rows["predicted"]].nlargest(NUM_EXAMPLES, "confidence")
        found[lang] = [
            {
                "index": int(row["index"]),
                "true": row["true"],
                "predicted": row["predicted"],
                "confidence": round(float(row["confidence"]), 4),
                "text": shorten(test_texts[int(row["index"])]),
            }
            for row in wrong.to_dict("records")
        ]
    return found


def confidences(rows: "pd.DataFrame", result: dict[str, Any]) -> "np.ndarray":
    """Return how sure a model was of its predictions, shape [texts].

    The probability of the predicted label; of label sets that of the wrong decision that it was surest of, 0 where all
    are right.

    Args:
        rows: see `load_predictions`.
        result: content of eval/LANG.json.
    """
    import numpy as np

    registers = [name for name in rows.columns if name not in ("index", "true", "predicted")]
    probabilities = rows[registers].to_numpy()
    if result.get("labels") != "multi":
        return probabilities.max(axis=1)
    true, predicted = (label_matrix(rows[name].tolist(), registers) for name in ("true", "predicted"))
    sure = np.where(predicted > 0, probabilities, 1 - probabilities)
    return np.where(true != predicted, sure, 0).max(axis=1)


def shorten(text: str) -> str:
    """Return the beginning of a text, cut at a word if there is one to cut at."""
    text = " ".join(text[: 4 * NUM_CHARACTERS].split())
    if len(text) <= NUM_CHARACTERS:
        return text
    cut = text[:NUM_CHARACTERS]
    return f"{cut.rpartition(' ')[0] or cut} \u2026"
