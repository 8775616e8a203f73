# PYTHON_ARGCOMPLETE_OK
"""Search a grid of hyperparameters: every permutation is a Slurm job, all together are one array.

    python grid_search.py config/finetune-rus-pol-sentiment.json --grid_config config/grid-search.json --dry_run
    python grid_search.py config/finetune-rus-pol-sentiment.json --grid_config config/grid-search.json
    python grid_search.py config/finetune-rus-pol-sentiment.json --grid_config config/grid-search.json --collect

What is complete or in the queue is not submitted again. --collect writes a table with the best run first, the
best run's options as a config file for finetune.py, and a figure, to outputs/[SUBFOLDER/]SEARCH. SEARCH is
named after the last config and the grid.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli.options import MODEL, PLACES, SLURM, option
from utils.cli.script import run_script
from utils.data.delimited import write_table
from utils.errors import UserError
from utils.evaluation.rankings import describe_expected
from utils.jobs import grid as grids
from utils.jobs.batch import TEMPLATES
from utils.jobs.experiments import (
    Experiment,
    ExperimentBatch,
    JobOptions,
    check_config,
    check_languages,
    check_texts,
    make_jobs,
    parse_job_options,
)
from utils.runs.files import write_json

# Heading of options in --help.
RESULTS = "results"


@dataclass(kw_only=True)
class GridOptions(JobOptions):
    """The options of grid_search.py."""

    grid_config: str = option(
        "config/grid-search.json", "file with the grid of hyperparameters", group=MODEL, metavar="FILE"
    )
    template: str = option(
        str(TEMPLATES / "grid-search-fine-tune-template.sh"),
        "template of the jobs",
        group=SLURM,
        aliases=["-t"],
        metavar="FILE",
    )
    temp_config_dir: str | None = option(
        None, "where the jobs' config files are written; without it beside their scripts", group=PLACES, metavar="DIR"
    )
    collect: bool = option(False, "gather the results of the jobs that are complete", group=RESULTS)
    metric: str = option(
        "validation_macro_f1",
        "--collect: what to sort by, a column of the table: validation_loss, LANG_macro_f1, ...",
        group=RESULTS,
    )


def main() -> int:
    """Run the script; returns its exit status."""
    options, base = parse_job_options(GridOptions, __doc__)
    search, grid, jobs = plan(options, base)
    if options.collect:
        collect(jobs, grid, options, base, search)
        return 0
    check_texts(jobs)
    count = len(grid.permutations())
    print(f"{search}: {count} permutations of {len(grid.parameters)} parameters, {len(jobs) // count} jobs each")
    again = shlex.join(["python", "grid_search.py", *sys.argv[1:], "--collect"])
    return ExperimentBatch(search, jobs, options, options.temp_config_dir).run(f"results   {again}")


def plan(options: GridOptions, base: dict[str, Any]) -> tuple[str, grids.Grid, list[Experiment]]:
    """Return the search's name, its grid, and a job per permutation, kind of texts and training languages."""
    path = Path(options.grid_config)
    grid = grids.read_grid(path, base)
    search = f"{Path(options.config[-1]).stem}_{path.stem}"
    languages = check_languages(base, options)
    train_langs = grids.choose_languages(path, "train", grid.train, languages)
    eval_langs = grids.choose_languages(path, "eval", grid.eval, languages)
    jobs = []
    for values in grid.permutations():
        config = grids.configure(base, values, search)
        jobs += make_jobs(config, options, train_langs, eval_langs, grids.permutation_name(values))
    return search, grid, jobs


def collect(jobs: list[Experiment], grid: grids.Grid, options: GridOptions, base: dict[str, Any], search: str) -> None:
    """Write the table, the best run's config file and the figure of the jobs that are complete."""
    rows = grids.results_table(jobs, grid)
    if not rows:
        raise UserError(f"none of the {len(jobs)} jobs of {search} is complete (expected {jobs[0].result_json}, ...)")
    rows = grids.sort_table(rows, options.metric)

    import pandas as pd

    from utils.figures.grid import grid_figure
    from utils.figures.style import save_figure

    folder = jobs[0].layout.outputs.parent.parent
    columns = list(dict.fromkeys(name for row in rows for name in row))
    # A run may lack a language that others were evaluated on.
    table = [{name: row.get(name) for name in columns} for row in rows]
    written = [write_table(folder / "results.csv", table)]
    by_name = {job.name: job for job in jobs}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        best.setdefault((row["model"], row["train_langs"]), row)
    files = {"best": rows[0]}
    if len(best) > 1:
        files |= {f"best-{model}-{langs}": row for (model, langs), row in best.items()}
    for name, row in files.items():
        written.append(folder / f"{name}.json")
        write_json(written[-1], best_config(by_name[row["name"]], base))
    figure = grid_figure(rows, grid.varying, options.metric)
    written += save_figure(figure, folder / "grid", ["png", "pdf"]) if figure else []
    print(f"{len(rows)} of {len(jobs)} jobs are complete; the best by {options.metric}:")
    shown = ["model", "train_langs", *grid.varying, options.metric]
    print(pd.DataFrame(rows[:10])[shown].to_string(index=False))
    scored = [row[options.metric] for row in rows if row.get(options.metric) is not None]
    print(describe_expected(scored, not options.metric.endswith("loss")))
    if not figure:
        print("no parameter has several values, so there is nothing to draw")
    print("\n".join(map(str, written)))
    print(f"the best run again: python finetune.py --config {folder / 'best.json'}")


def best_config(job: Experiment, base: dict[str, Any]) -> dict[str, Any]:
    """Return a job's options as finetune.py takes them, below the subfolder that the user gave, if any."""
    config = {key: value for key, value in job.config.items() if key != "subfolder"}
    config |= {"subfolder": base["subfolder"]} if base.get("subfolder") else {}
    check_config(config, job.name)
    return config


if __name__ == "__main__":
    run_script(main)
