# PYTHON_ARGCOMPLETE_OK
"""Label texts with a fine-tuned classifier: one, a stream, a corpus.

    python predict.py --model_name xlmr --train_langs en-fr --text "The minister said on Friday that ..."
    cat texts.txt | python predict.py --model models/xlmr-en-fr -
    python predict.py --model models/xlmr-en-fr --input books/ --segments
    python predict.py --model_name xlmr --train_langs en-fr --input data/*.jsonl.zst --output_dir predictions/web
    python predict.py --model_name xlmr --train_langs en-fr --input corpus/ --text_column document.text --id_column url

--text and - print a line per text. With --input, every file has its labels in a file of the same name below
--output_dir, in its order; predictions.json says what they were made with and what was counted. Stopped by a signal
or killed, the same command goes on where it was.

    python predict.py --model_name xlmr --train_langs en-fr --export onnx
    python predict.py --model_name xlmr --train_langs en-fr --push_to_hub OWNER/NAME
"""

import os
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.panels import show
from utils.cli.parser import parse_options
from utils.cli.script import EXIT_FAILURE, EXIT_USAGE, run_script
from utils.errors import UserError
from utils.prediction.folder import LabelFolder
from utils.prediction.inputs import InputFile, find_inputs
from utils.prediction.model import find_model_folder, model_checksum
from utils.prediction.options import IDENTITY_OPTIONS, PredictOptions
from utils.prediction.plan import read_share
from utils.prediction.shares import Piece, deal_out
from utils.prediction.summary import LOW_CONFIDENCE, describe_overview, describe_problems
from utils.runs.distributed import is_main_process, num_processes
from utils.runs.files import check_writable
from utils.runs.record import git_commit, library_versions
from utils.runs.stop import end_on_signals

if TYPE_CHECKING:
    from utils.evaluation.inference import Classifier
    from utils.prediction.corpus import Outcome

# Where labels go unless the user says.
OUTPUT_DIR = "predictions"
# Options that are about files, and about single texts, alone.
OF_FILES = ("text_column", "id_column", "skip_bad_rows", "output_format", "keep_columns", "force", "output_dir")
OF_LINES = ("format",)


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(PredictOptions, __doc__)
    check_task(options)
    if options.export or options.push_to_hub:
        from utils.prediction.export import export_model, push_model

        return push_model(options) if options.push_to_hub else export_model(options)
    if options.input or options.share:
        return label_corpus(options)
    from utils.prediction.lines import label_lines

    return label_lines(options)


def check_task(options: PredictOptions) -> None:
    """Raise a `UserError` unless exactly one thing is to be done, in a way that can be done."""
    tasks = {
        "--text": options.text,
        "-": options.stdin,
        "--input": options.input,
        "--share": options.share,
        "--export": options.export,
        "--push_to_hub": options.push_to_hub,
    }
    given = [name for name, value in tasks.items() if value]
    if not given:
        raise UserError("nothing to label: give --text TEXT, - for standard input, or --input FILE; see --help")
    if len(given) > 1 and given != ["--input", "--export"]:
        raise UserError(f"{' and '.join(given)} exclude each other")
    ignored = OF_FILES if options.text or options.stdin else OF_LINES if options.input or options.share else ()
    for field in fields(PredictOptions):
        if field.name in ignored and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name} has no effect with {given[0]}; leave it out")
    if options.segments and not options.output_format.startswith("jsonl"):
        raise UserError(f"--segments are lists: --output_format jsonl.zst or jsonl, not {options.output_format}")
    if options.segments and (options.text or options.stdin) and options.format != "json":
        raise UserError("--segments are lists: --format json")
    if options.hplt and not options.output_format.startswith("jsonl"):
        raise UserError(f"--hplt writes lines of JSON: --output_format jsonl.zst or jsonl, not {options.output_format}")


def label_corpus(options: PredictOptions) -> int:
    """Label files; returns the exit status: not 0 if some of them could not be labelled."""
    end_on_signals("the same command goes on behind the last part that is whole")
    root, files, pieces = find_files(options)
    name, model_folder = find_model_folder(options)
    folder = LabelFolder(output_folder(options), options.output_format)
    check_writable(folder.path)
    # Every process finds the same, and one of them writes it.
    made_with = {
        "model_sha256": model_checksum(model_folder),
        "root": str(root),
        "options": {option: getattr(options, option) for option in IDENTITY_OPTIONS},
    }
    if not options.force:
        # Before the model takes its time.
        folder.check(made_with)
    classifier = load_classifier(options, model_folder)
    about = {
        "model": name,
        "labels": classifier.labels,
        "temperature": classifier.temperature,
        "number_format": classifier.precision,
        "versions": library_versions(),
        "git_commit": git_commit(),
    }
    if classifier.labelling.multilabel:
        about |= {"label_kind": "multi", **classifier.labelling.about()}
    noted = folder.begin(made_with, about, list(files), options.force)
    if noted["number_format"] != classifier.precision:
        raise UserError(
            f"{folder.path} holds labels that were computed in {noted['number_format']}, and {options.precision} is "
            f"{classifier.precision} here; go on with --precision {noted['number_format']}"
        )

    from utils.prediction.corpus import CorpusLabeller

    folder.write_overview(list(files), LOW_CONFIDENCE)
    labeller = CorpusLabeller(options, classifier, folder, files)
    try:
        outcome = labeller.label(pieces)
    finally:
        overview = folder.write_overview(list(files), LOW_CONFIDENCE)
    return report(outcome, overview, folder)


def output_folder(options: PredictOptions) -> Path:
    """Return where the labels go."""
    return Path(options.output_dir or OUTPUT_DIR)


def find_files(options: PredictOptions) -> tuple[Path, dict[str, InputFile], list[Piece]]:
    """Return the folder of all texts, the files by name, and which of them, or which parts, this process labels."""
    if options.share:
        root, found, pieces = read_share(options.share)
    else:
        root, found = find_inputs(options.input or [], output_folder(options))
        pieces = [Piece(file.name, file.size) for file in found]
    processes, rank = num_processes(), int(os.environ.get("RANK", "0"))
    if processes > 1:
        shares = deal_out(pieces, processes)
        pieces = shares[rank] if rank < len(shares) else []
    return root, {file.name: file for file in found}, pieces


def load_classifier(options: PredictOptions, folder: Path) -> "Classifier":
    """Load the model, onto this process's own GPU if there are several."""
    import torch

    from utils.evaluation.inference import Classifier

    rank = os.environ.get("LOCAL_RANK")
    device = torch.device("cuda", int(rank)) if rank and torch.cuda.is_available() else None
    return Classifier(folder, options.precision, options.temperature, device)


def report(outcome: "Outcome", overview: dict[str, Any], folder: LabelFolder) -> int:
    """Say what was labelled and what was not; returns the exit status."""
    if is_main_process():
        command = shlex.join(["python", "post_eval.py", "--predictions", str(folder.path)])
        show("labels", f"{describe_overview(outcome, overview, folder)}\nnext  {command}")
    for line in describe_problems(outcome):
        print(f"predict.py: error: {line}", file=sys.stderr)
    if not outcome.problems:
        return 0
    return EXIT_USAGE if all(isinstance(problem, UserError) for problem in outcome.problems.values()) else EXIT_FAILURE


if __name__ == "__main__":
    run_script(main)
