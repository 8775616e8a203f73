"""The options of finetune_lm.py that say which surprisals are computed."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.cli.options import EFFORT, GIVEN, Need, option
from utils.data.lm_expansion import PseudoLikelihood
from utils.data.text_files import TextFile
from utils.errors import UserError, nearest

SURPRISALS = "surprisals of test files"
TESTED = Need("test_file", GIVEN, "is for --test_file")
# What a figure has room for.
MOST_SENTENCES = 20


@dataclass(kw_only=True)
class SurprisalOptions:
    """Which surprisals of the test files are computed."""

    GROUP: ClassVar[str] = SURPRISALS

    bos: Literal["auto", "yes", "no"] = option(
        "auto",
        "what causal models read before a text, in training too: auto: the tokenizer's first token, or its last one, "
        "if it has any; no: nothing, and the first token of a text has no surprisal",
    )
    stride: int | None = option(
        None,
        "read longer texts in windows in which each token has at least so many before it; without it they are cut",
        minimum=1,
        metavar="TOKENS",
        needs=TESTED,
    )
    pll: PseudoLikelihood | None = option(
        None,
        "masked models: each token masked in turn, alone (original) or with the rest of its word (within_word_l2r); "
        "sequence-to-sequence models: each token or each word behind a sentinel",
        needs=TESTED,
    )
    word_correction: bool = option(
        False,
        "causal models: also the surprisals of words as such, which end where the next one begins",
        needs=TESTED,
    )
    pairs: list[str] | None = option(
        None,
        "test files NAME.jsonl hold pairs of sentences: the keys of the one that should be likelier and of the other",
        metavar="KEY",
        needs=TESTED,
    )
    plot_items: list[int] | None = option(
        None,
        "draw the surprisal of every word of these sentences: their lines, from 1",
        metavar="LINE",
        role=EFFORT,
        needs=TESTED,
    )
    plot_by: str | None = option(
        None,
        "draw the mean surprisals of the sentences by this key of the metadata",
        metavar="KEY",
        role=EFFORT,
        needs=TESTED,
    )
    test_precision: Literal["auto", "fp64", "fp32", "bf16"] = option(
        "auto", "number format of the test; auto: fp64 on CPUs, fp32 on GPUs", needs=TESTED
    )


def check_test_files(options: "SurprisalOptions", files: list[TextFile], limit: int | None) -> None:
    """Refuse pairs and figures of what no test file has.

    Args:
        options: as the user gave them.
        files: that are tested.
        limit: how many examples of each, at most.

    Raises:
        UserError: for a line or a key that is not there, or more lines than a figure has room for.
    """
    if options.pairs is not None and not any(file.pairs for file in files):
        raise UserError("--pairs is for test files NAME.jsonl, and none is given")
    lines = options.plot_items or []
    most = max((min(file.num_examples, limit or file.num_examples) for file in files), default=0)
    if len(lines) > MOST_SENTENCES:
        raise UserError(f"--plot_items: a figure has room for {MOST_SENTENCES} sentences, got {len(lines)}")
    for line in lines:
        if not 1 <= line <= most:
            raise UserError(f"--plot_items {line}: expected lines of a test file, 1 to {most:,}")
    keys = {key for file in files for key in file.metadata_keys}
    if options.plot_by is not None and options.plot_by not in keys:
        near = nearest(options.plot_by, keys)
        raise UserError(f"--plot_by {options.plot_by}: not in the metadata of the test files{near}")


def check_bos(options: "SurprisalOptions", task: str) -> None:
    """Refuse what masked and sequence-to-sequence models would ignore."""
    if options.bos != "auto" and task != "lm":
        raise UserError(f"--bos is for causal language models; this one is {task}")


def check_surprisal_options(options: "SurprisalOptions", is_masked: bool, task: str, max_length: int) -> None:
    """Refuse what cannot be computed with a model.

    Args:
        options: as the user gave them.
        is_masked: whether a function changes the test files.
        task: lm, mlm or seq2seq.
        max_length: tokens that the model reads.

    Raises:
        UserError: saying which option does not fit.
    """
    for name, wanted, what in (
        ("stride", ("lm",), "causal"),
        ("word_correction", ("lm",), "causal"),
        ("pll", ("mlm", "seq2seq"), "masked and sequence-to-sequence"),
    ):
        if getattr(options, name) and task not in wanted:
            raise UserError(f"--{name} is for {what} language models; this one is {task}")
    if options.stride and options.stride >= max_length:
        raise UserError(f"--stride {options.stride}: expected less than the {max_length} tokens that a window has")
    for name in ("stride", "pll"):
        if getattr(options, name) and is_masked:
            raise UserError(f"--{name} reads texts as they are; leave --data_preprocessing_fn.test out")
