"""The options of predict.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.cli.options import (
    DATA,
    EFFORT,
    IDENTITY,
    MEMORY,
    MODEL,
    PLACE,
    PLACES,
    SLURM,
    ScriptOptions,
    option,
    options_by_role,
)
from utils.models.options import InferenceOptions
from utils.models.registry import RegistryOptions

# Heading in --help.
LABELS, OTHERS = "labels of a corpus", "for other programs"
# Rows of a part: what is sorted by length and computed together, and lost at most when a process is killed.
ROWS_PER_PART = 2000


@dataclass(kw_only=True)
class PredictOptions(InferenceOptions, RegistryOptions, ScriptOptions):
    """The options of predict.py."""

    ROLE: ClassVar[str] = IDENTITY
    GROUP: ClassVar[str] = DATA
    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "which model", DATA: "which texts", MEMORY: "how"}

    stdin: Literal["-"] | None = option(
        None, "read standard input, a text per line", role=EFFORT, positional="optional"
    )
    model: str | None = option(
        None,
        "folder or hub id of any classifier; or name one of ours with the next two",
        role=PLACE,
        group=MODEL,
        metavar="MODEL",
    )
    model_name: str | None = option(None, "abbreviation of the model", role=PLACE, group=MODEL, metavar="NAME")
    train_langs: str | None = option(
        None, "languages that it was trained on: en-fr", role=PLACE, group=MODEL, metavar="LANGS"
    )
    subfolder: str | None = option(
        None, "folder below models/ that it was trained in", role=PLACE, group=MODEL, metavar="FOLDER"
    )
    text: list[str] | None = option(None, "label these texts and print a line for each", role=EFFORT, metavar="TEXT")
    format: Literal["text", "json"] = option(
        "text", "of the lines for --text and -: register, probability, runner-up; or JSON", role=EFFORT
    )
    input: list[str] | None = option(
        None,
        "label files: .txt (a text per line), .csv, .tsv, .jsonl, each plain, .gz or .zst, or .parquet; folders and "
        "globs of them",
        role=PLACE,
        metavar="PATH",
    )
    text_column: str = option("text", "where the text is; a.b is the key b of the object a", metavar="COLUMN")
    id_column: str | None = option(None, "what to call the rows by; without it their numbers, from 0", metavar="COLUMN")
    skip_bad_rows: bool = option(
        False,
        "list rows without text, or that cannot be read, in bad_rows.jsonl, instead of refusing their file",
        role=EFFORT,
    )
    output_dir: str | None = option(  # type: ignore[assignment]
        None,
        "where the labels are written; without it predictions/; of --export, without it a folder in the model's",
        role=PLACE,
        group=PLACES,
        shared=False,
        metavar="DIR",
    )
    output_format: Literal["jsonl.zst", "jsonl", "csv", "parquet"] = option(
        "jsonl.zst", "a file of this kind for each input file", group=LABELS
    )
    keep_text: bool = option(False, "copy the texts", group=LABELS)
    keep_columns: list[str] | None = option(None, "copy these columns of the input", group=LABELS, metavar="COLUMN")
    segments: bool = option(
        False,
        "also give the register of each window of a long text, with its place in characters: windows as the model "
        "reads them, or else one behind the other",
        group=LABELS,
    )
    hplt: bool = option(False, 'records as HPLT has them: {"id": ..., "web-register": {register: p}}', group=LABELS)
    force: bool = option(False, "forget the labels that are there already", role=EFFORT, group=LABELS)
    rows_per_part: int = option(
        ROWS_PER_PART,
        "rows that are sorted by length together, and computed again at most after an interruption",
        group=MEMORY,
        minimum=1,
        metavar="ROWS",
    )
    num_workers: int | None = option(
        None,
        "processes that read and tokenize; without it one, or with a GPU as many as it has use for",
        role=EFFORT,
        group=MEMORY,
        minimum=0,
        metavar="N",
    )
    max_restarts: int = option(
        3,
        "give up when Slurm has started the job so often without another part",
        role=EFFORT,
        group=SLURM,
        minimum=1,
        metavar="TIMES",
    )
    share: str | None = option(
        None,
        "label one share of a plan of submit_predict_jobs.sh: FILE:NUMBER",
        role=EFFORT,
        group=SLURM,
        metavar="SHARE",
    )
    export: Literal["onnx", "openvino"] | None = option(
        None, "write the model for ONNX Runtime or OpenVINO to --output_dir", role=EFFORT, group=OTHERS
    )
    push_to_hub: str | None = option(
        None, "upload the model and its card to this repository of the hub", role=EFFORT, group=OTHERS, metavar="NAME"
    )


# Options that make other labels, or other files of them.
IDENTITY_OPTIONS = tuple(
    name for name in options_by_role(PredictOptions, IDENTITY, "hyperparameter") if name != "precision"
)
