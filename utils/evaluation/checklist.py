"""What the reproducibility checklist of ACL venues asks, filled from what runs have recorded: checklist.md.

The Responsible NLP Research checklist of ACL Rolling Review (https://aclrollingreview.org/responsibleNLPresearch/),
sections B (data) and C (experiments); what no file says is "not recorded". Energy is estimated as codecarbon
(https://mlco2.github.io/codecarbon/methodology.html) does offline: hours times the power that the maker gives for the
device, and 3 W for 8 GB of memory.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.cli.values import plural
from utils.errors import UserError
from utils.evaluation.results import load_run
from utils.runs.shapes import read_record, read_report

MISSING = "not recorded"
# Watts, by what a device's name contains; makers' figures for the whole board. CPUs as codecarbon takes those that it
# does not know: half of 85 W.
WATTS = {
    **{"H200": 700, "H100": 700, "A100": 400, "V100": 300, "A40": 300, "L40S": 350, "L4": 72, "T4": 70, "P100": 250},
    **{"MI300": 750, "MI250": 500, "RTX 4090": 450, "RTX 3090": 350, "cpu": 42.5},
}
WATTS_PER_GB = 3 / 8
# Options that say where and how, or are said elsewhere.
ELSEWHERE = (
    "config",
    "print_config",
    "seed",
    "model_name",
    "train_langs",
    "checkpoint",
    "revision",
    "corpus_path",
    "task",
)


def write_checklist(base_dir: Path, hyperparameters: Callable[[dict[str, Any]], list[str]]) -> str:
    """Return the checklist of all runs below a folder, as Markdown.

    Args:
        base_dir: the folder.
        hyperparameters: given a run's options, the names of those that had an effect.

    Raises:
        UserError: if there is none.
    """
    runs = [found for path in sorted(base_dir.rglob("run.json")) if (found := _load(path.parent, base_dir))]
    if not runs:
        raise UserError(f"--checklist: no complete runs below {base_dir}")
    sections = [
        "# Reproducibility checklist",
        "Filled from the records of "
        f"{plural(len(runs), 'complete run')}; see the Responsible NLP Research checklist of ACL "
        "Rolling Review for the questions.",
        "## B. Data",
        *_data(runs),
        "## C1. Models, computing, hardware",
        _models(runs),
        *_computing(runs),
        "## C2. Hyperparameters, and how they were chosen",
        *_hyperparameters(runs, hyperparameters),
        _search(base_dir),
        "## C3. Statistics",
        *_statistics(runs),
        "## C4. Software",
        _software(runs),
    ]
    return "\n\n".join(sections) + "\n"


def _load(folder: Path, base_dir: Path) -> dict[str, Any] | None:
    record = read_record(folder / "run.json")
    if record is None or record["status"] != "complete" or "train_registers" not in record:
        return None
    results = load_run(folder)
    return {
        "name": folder.relative_to(base_dir).as_posix(),
        "record": record,
        "report": read_report(folder / "train.json") or {},
        "evaluations": results.evaluations if results else {},
    }


def _data(runs: list[dict[str, Any]]) -> list[str]:
    rows, files, excluded = [], {}, set()
    for run in runs:
        data = run["record"]["data"]
        for file in data.get("files", []):
            files[file["sha256"]] = Path(str(file.get("path") or file.get("dataset"))).name
            if file.get("excluded"):
                excluded.add(f"{file['excluded']:,} rows left out by {Path(file['path']).name}")
        counts = [sum(run["record"][f"{part}_registers"].values()) for part in ("train", "validation")]
        tests = ", ".join(f"{lang} {result['num_texts']:,}" for lang, result in run["evaluations"].items())
        rows.append([run["name"], *(f"{count:,}" for count in counts), tests or MISSING])
    corpora = sorted({str(run["record"]["data"].get("corpus", MISSING)) for run in runs})
    registers = sorted({" ".join(run["record"]["data"].get("registers", [])) for run in runs})
    leaking = sorted(
        {f"{lang} {share:.2%}" for run in runs for lang, share in (run["record"].get("leakage") or {}).items() if share}
    )
    known = any("leakage" in run["record"] for run in runs)
    named = ", ".join(f"{name} ({digest[:12]})" for digest, name in sorted(files.items(), key=lambda item: item[1]))
    return [
        f"Sources: {', '.join(corpora)}. License of the texts: {MISSING}.",
        f"Labels: {'; '.join(registers)}.",
        f"Training files (SHA-256 begins): {named or MISSING}.",
        *([f"Left out: {'; '.join(sorted(excluded))}."] if excluded else []),
        f"Test texts that are in training too: {(', '.join(leaking) or 'none') if known else MISSING}.",
        _table(["run", "training texts", "validation texts", "test texts"], rows),
    ]


def _models(runs: list[dict[str, Any]]) -> str:
    rows = []
    for name, own in _by(runs, lambda run: run["record"]["options"].get("model_name", run["name"])).items():
        options, report = own[0]["record"]["options"], own[0]["report"]
        numbers = [report.get(key) for key in ("num_parameters", "num_trainable_parameters")]
        shown = [MISSING if number is None else f"{number:,}" for number in numbers]
        place = str(options.get("checkpoint") or MISSING)
        license_ = own[0]["record"].get("license")
        rows.append(
            [
                name,
                Path(place).name if Path(place).is_absolute() else place,
                str(options.get("revision") or MISSING),
                *shown,
                MISSING if license_ in (None, "unknown") else license_,
            ]
        )
    return _table(["model", "checkpoint", "revision", "parameters", "trained", "license"], rows)


def _computing(runs: list[dict[str, Any]]) -> list[str]:
    rows, total, energy, unknown = [], 0.0, 0.0, False
    for device, own in _by(runs, _device).items():
        hours = sum(_seconds(run) * run["record"].get("num_processes", 1) for run in own) / 3600
        watts = next((watts for name, watts in WATTS.items() if name.lower() in device.lower()), None)
        memory = sum((run["report"].get("peak_memory_bytes") or 0) for run in own) / len(own) / 1e9 * WATTS_PER_GB
        total += hours
        if watts is None:
            unknown = True
        else:
            energy += hours * (watts + memory) / 1000
        shown = MISSING if watts is None else f"{hours * (watts + memory) / 1000:.3g} kWh"
        rows.append([device, f"{len(own)}", f"{hours:.3g}", shown])
    more = ", without devices whose power is not known" if unknown else ""
    return [
        f"In all {total:.3g} device hours of training and evaluation; an estimate of {energy:.3g} kWh{more}, without "
        "what failed, was searched or was interrupted before.",
        _table(["device", "runs", "device hours", "energy, estimated"], rows),
    ]


def _device(run: dict[str, Any]) -> str:
    found = run["record"].get("device") or next((x.get("device") for x in run["evaluations"].values()), None)
    return str(found or MISSING)


def _seconds(run: dict[str, Any]) -> float:
    return float(run["report"].get("seconds") or 0) + sum(x.get("seconds") or 0 for x in run["evaluations"].values())


def _hyperparameters(runs: list[dict[str, Any]], chosen: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    known = dict.fromkeys(name for run in runs for name in chosen(run["record"]["options"]))
    names = [name for name in known if name not in ELSEWHERE]
    values = {name: {json.dumps(run["record"]["options"].get(name)) for run in runs} for name in names}
    same = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    varying = [name for name, found in values.items() if len(found) > 1]
    shown = [f"`{name}` {_plain(value)}" for name, value in same.items() if value not in ("null", "false", "{}", "[]")]
    found = [f"The same in all runs: {', '.join(shown)}."] if shown else []
    if varying:
        rows = [[run["name"], *(_plain(json.dumps(run["record"]["options"].get(x))) for x in varying)] for run in runs]
        found.append(_table(["run", *varying], rows))
    return found


def _search(base_dir: Path) -> str:
    studies = sorted(path.parent for path in base_dir.rglob("study/optimization_results.csv.gz"))
    grids = sorted(path.parent for path in base_dir.rglob("results.csv") if (path.parent / "best.json").is_file())
    if not studies and not grids:
        return f"Search: {MISSING}. The epoch was chosen by the validation macro F1."
    lines = [f"{path.relative_to(base_dir)}: a study, its trials in optimization_results.csv.gz" for path in studies]
    lines += [f"{path.relative_to(base_dir)}: a grid, its runs in results.csv" for path in grids]
    return "Search: " + "; ".join(lines) + ". The epoch was chosen by the validation macro F1."


def _statistics(runs: list[dict[str, Any]]) -> list[str]:
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        seeds[run["name"].rpartition("/")[2]].append(run["record"].get("seed"))
    rows = [[name, f"{len(own)}", " ".join(map(str, sorted(set(own))))] for name, own in seeds.items()]
    rare = sorted({lang for run in runs for lang, x in run["evaluations"].items() if x.get("rare_registers")})
    which = f"averages over registers, some of which have under 10 texts: {', '.join(rare)}"
    narrow = f" Too narrow for {which}." if rare else ""
    return [
        f"Intervals: 95 %, percentile bootstrap over the test texts, 1,000 resamples.{narrow}",
        "Tests between models: `comparison_*.csv` of post_eval.py --compare; means over seeds: `seeds.csv`.",
        _table(["run", "runs of this name", "seeds"], rows),
    ]


def _software(runs: list[dict[str, Any]]) -> str:
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in run["record"].get("versions", {}).items():
            found[name].add(version)
        found["register-finetuning (git commit)"].add(str(run["record"].get("git_commit") or MISSING))
    return _table(["package", "version"], [[name, ", ".join(sorted(versions))] for name, versions in found.items()])


def _by(runs: list[dict[str, Any]], key: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return dict(found)


def _plain(value: str) -> str:
    return value.strip('"').replace("null", "default")


def _table(header: list[str], rows: list[list[str]]) -> str:
    def cell(text: str) -> str:
        return re.sub(r"([\\|`*<>\[\]])", r"\\\1", " ".join(str(text).split()))

    lines = [header, ["---"] * len(header), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
