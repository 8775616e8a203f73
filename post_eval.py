# PYTHON_ARGCOMPLETE_OK
"""Turn saved results into figures, tables, statistics and one HTML report.

    python post_eval.py
    python post_eval.py --base_dir outputs/balanced --style paper --format pdf
    python post_eval.py --ignore_cfm --tve_models xlmr --tve_metrics macro_f1 --tve_eval_langs en fr tr --name core
    python post_eval.py --compare xlmr-en xlmr-en-fr
    python post_eval.py --base_dir outputs --seeds
    python post_eval.py --predictions predictions/web

Reads MODEL-LANGS/eval/*.json below the base folder. Writes cfm.png beside each model's results, and tve.png,
summary.csv and report.html in the base folder. Figures are drawn anew where their numbers have changed; those of
filtered results have names of their own (tve-NAME.png, report-NAME.html). With --predictions the labels of predict.py
are counted instead: registers.csv, registers.png and report.html go to their folder.
"""

import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from utils.cli.options import IDENTITY, options_by_role
from utils.cli.panels import show
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.cli.values import plural
from utils.data.corpus_load import open_corpus
from utils.data.delimited import write_table
from utils.errors import UserError
from utils.evaluation.calibration import calibration_rows, describe_calibration, reliability_of_all
from utils.evaluation.checklist import write_checklist
from utils.evaluation.comparison import compare, comparison_file, describe
from utils.evaluation.misclassified import TestTexts, misclassified
from utils.evaluation.rankings import Ranks, almost_stochastic_order, describe_order, rank_runs
from utils.evaluation.results import RunResults, load_results, tidy_table
from utils.evaluation.seeds import SeedGroup, describe_seeds, find_groups, mean_runs, seeds_table
from utils.evaluation.selection import MatrixGrid, select_grid, select_matrices, shown_runs
from utils.explanation.files import read_explanations
from utils.figures.cfm import confusion_figure
from utils.figures.drawing import Drawing, draw_all
from utils.figures.names import Names, load_names
from utils.figures.ranks import ranks_figure
from utils.figures.registers import registers_figure
from utils.figures.reliability import reliability_figure
from utils.figures.style import STYLES, Style
from utils.figures.tve import split_pages, train_vs_eval_figure
from utils.prediction.results import describe_counts, first_level, label_counts, label_table, read_overview
from utils.report.labels import write_label_report
from utils.report.options import CFM, FILTERED, REPORT, STATISTICS, TVE, PostEvalOptions
from utils.report.report import report_data, write_report
from utils.runs.files import write_text
from utils.training.classifier_options import FREE_OPTIONS, card_options


@dataclass
class Results:
    """What there is to show: the runs and what was computed of them."""

    base_dir: Path
    names: Names
    runs: list[RunResults]
    matrices: list[tuple[RunResults, list[str]]]
    grid: MatrixGrid | None
    comparisons: list[dict[str, Any]]
    groups: list[SeedGroup]
    reliabilities: dict[str, dict[str, Any]]
    ranks: Ranks | None = None
    # What the names of files end with, for filtered results: of the confusion matrices, of the train-vs-eval
    # matrices, and of the tables and the report.
    suffixes: tuple[str, str, str] = ("", "", "")


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(PostEvalOptions, __doc__)
    if options.predictions:
        return count_labels(options, Path(options.predictions))
    results = gather(options)
    tables = make_tables(options, results)
    for text in (
        describe(results.comparisons) if results.comparisons else "",
        describe_seeds(tables["seeds.csv"]),
        describe_order(tables["order.csv"]),
        describe_calibration(tables["calibration.csv"]),
    ):
        if text:
            print(text)
    written, unchanged = draw_all(plan_figures(options, results))
    written += [write_table(results.base_dir / name, rows) for name, rows in tables.items() if rows]
    if options.checklist:
        written.append(results.base_dir / "checklist.md")
        write_text(written[-1], write_checklist(results.base_dir, card_options))
    if results.runs and not options.ignore_report:
        written.append(make_report(options, results, tables["seeds.csv"]))
    evaluations = sum(len(run.evaluations) for run in results.runs)
    left = f"; {plural(unchanged, 'figure')} left as {'it was' if unchanged == 1 else 'they were'}" if unchanged else ""
    lines = [f"{plural(len(results.runs), 'model')}, {plural(evaluations, 'evaluation')}{left}", *map(str, written)]
    if written and written[-1].suffix == ".html":
        lines.append(f"next: open {written[-1]} in a browser")
    show("figures, tables and the report", "\n".join(lines))
    return 0


def count_labels(options: PostEvalOptions, folder: Path) -> int:
    """Write table, figure and page about the labels in a folder; returns the exit status."""
    for name in options_by_role(PostEvalOptions, IDENTITY, groups=(STATISTICS, REPORT, CFM, TVE)):
        if getattr(options, name):
            raise UserError(f"--{name} is about evaluations; leave it or --predictions out")
    overview, names = read_overview(folder), load_names(options.corpus_path)
    counts, below = label_counts(overview), overview["low_confidence"]["below"]
    print(describe_counts(counts, below))
    make = partial(
        registers_figure, first_level(counts, overview), overview["model"], below, STYLES[options.style], names
    )
    written, _ = draw_all([Drawing(make, folder / "registers", formats_of(options))])
    written.append(write_table(folder / "registers.csv", label_table(counts, overview["labels"])))
    written.append(write_label_report(folder / "report.html", overview, names))
    if overview["unfinished"]:
        print(f"not finished and not counted: {plural(len(overview['unfinished']), 'file')}")
    for path in written:
        print(path)
    return 0


def gather(options: PostEvalOptions) -> Results:
    """Load and compute all that was asked for; whatever is wrong with it ends the script before anything is written."""
    base_dir = Path(options.output_dir) / (options.subfolder or "")
    names = load_names(options.corpus_path)
    # What a shell completes ends with a slash.
    options.compare = [Path(name).as_posix() for name in options.compare or []]
    # Runs that are compared, or that differ by their seed, may be in subfolders alone.
    runs = load_results(base_dir, required=not (options.compare or options.seeds or options.checklist))
    matrices = select_matrices(runs, options.cfm_models, options.cfm_train_langs, options.cfm_eval_langs)
    if options.show_texts and any(not x.get("task") for run in runs for x in run.evaluations.values()):
        open_corpus(options.corpus_path)
    filters = (options.tve_models, options.tve_metrics, options.tve_train_langs, options.tve_eval_langs)
    grid: MatrixGrid | None = select_grid(runs, *filters)
    suffixes = name_endings(options)
    if options.ignore_cfm:
        matrices = []
    if options.ignore_tve or not runs:
        grid = None
    return Results(
        base_dir,
        names,
        shown_runs(runs, matrices, grid) if suffixes[2] else runs,
        matrices,
        grid,
        compare(base_dir, options.compare, options.seed) if options.compare else [],
        find_groups(base_dir, FREE_OPTIONS) if options.seeds else [],
        reliability_of_all(runs) if options.calibration else {},
        rank_runs(runs, "macro_f1") if options.ranks else None,
        suffixes,
    )


def name_endings(options: PostEvalOptions) -> tuple[str, str, str]:
    """Return what the names of confusion matrices, of train-vs-eval matrices, and of tables and report end with.

    Which models have confusion matrices drawn does not change what each of these figures shows.
    """
    ending = f"-{file_name(options.name or FILTERED)}"
    given = {name for name in vars(options) if name.startswith(("cfm_", "tve_")) and getattr(options, name)}
    filtered = [{"cfm_eval_langs", "cfm_ignore_summary"}, {name for name in given if name.startswith("tve_")}]
    filtered.append(given - {"cfm_ignore_summary"})
    cfm, tve, tables = (ending if options.name or names & given else "" for names in filtered)
    return cfm, tve, tables


def file_name(name: str) -> str:
    """Return a name if it can be the end of a file's name, else raise a `UserError`."""
    if not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"--name must be the end of a file name (letters, digits, '.', '_', '+', '-'), got {name!r}")
    return name


def make_tables(options: PostEvalOptions, results: Results) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table by the name of its file."""
    reliabilities = results.reliabilities
    tables = {
        f"summary{results.suffixes[2]}.csv": tidy_table(results.runs),
        "seeds.csv": seeds_table(results.groups),
        "order.csv": almost_stochastic_order(results.groups, "macro_f1", options.seed)
        if len(results.groups) > 1
        else [],
        "calibration.csv": [row for run in results.runs for row in calibration_rows(run, reliabilities.get(run.name))],
    }
    return tables | ({comparison_file(options.compare): results.comparisons} if options.compare else {})


def plan_figures(options: PostEvalOptions, results: Results) -> list[Drawing]:
    """Return the figures that are to be drawn."""
    style, names, base_dir = STYLES[options.style], results.names, results.base_dir
    formats, drawings = formats_of(options), []
    for run, langs in results.matrices:
        make = partial(confusion_figure, run, langs, options.cfm_ignore_summary, style, names)
        drawings.append(Drawing(make, run.folder / f"cfm{results.suffixes[0]}", formats))
    for run in results.runs:
        if run.name in results.reliabilities:
            make = partial(reliability_figure, run, results.reliabilities[run.name], style, names)
            drawings.append(Drawing(make, run.folder / "reliability", formats))
    if results.ranks:
        drawings.append(Drawing(partial(ranks_figure, results.ranks, style), base_dir / "ranks", formats))
    matrices = [(results.runs, results.grid, f"tve{results.suffixes[1]}")] if results.grid else []
    if results.groups:
        means = mean_runs(results.groups)
        matrices.append((means, select_grid(means, None, options.tve_metrics), "seeds"))
    for runs, grid, name in matrices:
        for part, path in pages(runs, grid, base_dir / name, style, names):
            drawings.append(Drawing(partial(train_vs_eval_figure, runs, part, style, names), path, formats))
    return drawings


def formats_of(options: PostEvalOptions) -> list[str]:
    """Return the file formats of the figures."""
    return options.format or (["png"] if options.style == "screen" else ["pdf"])


def pages(
    runs: list[RunResults], grid: MatrixGrid, path: Path, style: Style, names: Names
) -> list[tuple[MatrixGrid, Path]]:
    """Return what is on each figure, and its path: all, but one metric where a page limits the size, some models each
    where they are many."""
    by_metric = [(grid, path)]
    if style.widths:
        by_metric = [
            (replace(grid, metrics=[metric]), path.with_name(f"{path.name}-{metric}")) for metric in grid.metrics
        ]
    return [
        (part, own.with_name(f"{own.name}-{number}") if number > 1 else own)
        for metric, own in by_metric
        for number, part in enumerate(split_pages(runs, metric, style, names), 1)
    ]


def make_report(options: PostEvalOptions, results: Results, seeds: list[dict[str, Any]]) -> Path:
    """Write report.html; returns its path."""
    examples, problems = {}, []
    if options.show_texts:
        texts = TestTexts(options.corpus_path)
        examples = {run.name: misclassified(run, texts, problems) for run in results.runs}
    if problems:
        print(
            f"post_eval.py: no texts shown for {len(problems)} evaluations; the first: {problems[0]}", file=sys.stderr
        )
    data = report_data(
        results.runs,
        results.names,
        reliabilities=results.reliabilities,
        examples=examples,
        comparisons=results.comparisons,
        seeds=seeds,
        explanations={
            run.name: found for run in results.runs if (found := read_explanations(run.folder / "explanations"))
        },
        show_texts=options.show_texts,
    )
    return write_report(results.base_dir / f"report{results.suffixes[2]}.html", data)


if __name__ == "__main__":
    run_script(main)
