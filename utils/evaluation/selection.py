"""Which results are shown, and in which order."""

from dataclasses import dataclass, replace

from utils.errors import UserError, nearest
from utils.evaluation.results import RunResults, metrics_of, order_langs


def select_matrices(
    runs: list[RunResults],
    models: list[str] | None = None,
    train_langs: list[str] | None = None,
    eval_langs: list[str] | None = None,
) -> list[tuple[RunResults, list[str]]]:
    """Return the runs that the filters leave, each with the languages of its panels in order.

    Args:
        runs: what there is.
        models: only these; None is all.
        train_langs: only these training languages (``en-fr`` is one); None is all.
        eval_langs: only panels of these; None is all.

    Raises:
        UserError: if a filter names what no result has.
    """
    models = choose(sorted({run.model for run in runs}), models, "--cfm_models")
    train_langs = choose(sorted({run.train_langs for run in runs}), train_langs, "--cfm_train_langs")
    eval_langs = choose(sorted({lang for run in runs for lang in run.evaluations}), eval_langs, "--cfm_eval_langs")
    selected = []
    for run in runs:
        langs = [lang for lang in order_langs(run, list(run.evaluations)) if lang in eval_langs]
        if run.model in models and run.train_langs in train_langs and langs:
            selected.append((run, langs))
    return selected


def choose(known: list[str], wanted: list[str] | None, option: str) -> list[str]:
    """Return the wanted names in the order they were given, or all known ones.

    Raises:
        UserError: for the first name that no result has.
    """
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            raise UserError(f"{option}: no results for {name!r}{nearest(name, known)}")
    return list(dict.fromkeys(wanted))


DEFAULT_METRICS = ("micro_f1", "macro_f1")


@dataclass
class MatrixGrid:
    """Which matrices a figure shows: a panel per metric and model, all with the same rows and columns."""

    models: list[str]
    metrics: list[str]
    rows: list[str]
    columns: list[str]


def select_grid(
    runs: list[RunResults],
    models: list[str] | None = None,
    metrics: list[str] | None = None,
    train_langs: list[str] | None = None,
    eval_langs: list[str] | None = None,
) -> MatrixGrid:
    """Return what the filters leave.

    Args:
        runs: what there is.
        models: only these; None is all.
        metrics: None is `DEFAULT_METRICS`.
        train_langs: only these training languages (``en-fr`` is one); None is all.
        eval_langs: only these evaluation languages; None is all.

    Raises:
        UserError: if a filter names what no result has.
    """
    models = choose(sorted({run.model for run in runs}), models, "--tve_models")
    chosen = [run for run in runs if run.model in models]
    known = metrics_of(result for run in chosen for result in run.evaluations.values())
    metrics = choose(known, metrics or list(DEFAULT_METRICS), "--tve_metrics")
    rows, columns = shared_first({run.train_langs for run in chosen}, {x for run in chosen for x in run.evaluations})
    return MatrixGrid(
        models, metrics, choose(rows, train_langs, "--tve_train_langs"), choose(columns, eval_langs, "--tve_eval_langs")
    )


def shared_first(train_langs: set[str], eval_langs: set[str]) -> tuple[list[str], list[str]]:
    """Order rows and columns: shared languages first in the same order, so that the diagonal is in-language.

    Sets of several training languages come last.
    """
    shared = sorted(train_langs & eval_langs)
    only_train = sorted(train_langs - eval_langs, key=lambda langs: (langs.count("-"), langs))
    return shared + only_train, shared + sorted(eval_langs - train_langs)


def shown_runs(
    runs: list[RunResults], matrices: list[tuple[RunResults, list[str]]], grid: MatrixGrid | None
) -> list[RunResults]:
    """Return the runs and evaluations that figures show.

    Args:
        runs: what there is.
        matrices: see `select_matrices`.
        grid: see `select_grid`; None shows none.
    """
    shown: dict[str, set[str]] = {}
    for run, langs in matrices:
        shown.setdefault(run.name, set()).update(langs)
    for run in runs:
        if grid is not None and run.model in grid.models and run.train_langs in grid.rows:
            shown.setdefault(run.name, set()).update(lang for lang in grid.columns if lang in run.evaluations)
    return [
        replace(run, evaluations={lang: result for lang, result in run.evaluations.items() if lang in shown[run.name]})
        for run in runs
        if shown.get(run.name)
    ]
