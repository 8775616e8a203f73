"""The options of explain.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.cli.options import DATA, EFFORT, IDENTITY, MODEL, Need, option
from utils.models.options import CacheOptions, ClassifierOptions, ComputeOptions

METHOD = "method"
Method = Literal["integrated_gradients", "occlusion"]


@dataclass(kw_only=True)
class ExplainOptions(ComputeOptions, CacheOptions, ClassifierOptions):
    """The options of explain.py."""

    ROLE: ClassVar[str] = IDENTITY
    GROUP: ClassVar[str] = MODEL
    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "what to explain"}

    precision: Literal["auto", "bf16", "fp16", "fp32"] = option(
        "fp32", "number format; sums over gradients are exact in fp32 alone", group=METHOD
    )
    langs: list[str] = option(help="languages of test texts to explain, or all", metavar="LANG")
    num_texts: int = option(
        50, "test texts of each language, their labels in proportion", group=DATA, minimum=1, metavar="N"
    )
    method: Method = option(
        "integrated_gradients",
        "integrated_gradients: from the embeddings of a masked text to its own; occlusion: without each word in turn",
        group=METHOD,
    )
    steps: int = option(
        32,
        "points of the integral, at first; doubled until the words' scores add up to the logit's difference",
        role=EFFORT,
        group=METHOD,
        minimum=2,
        needs=Need("method", "integrated_gradients", "is for --method integrated_gradients"),
    )
    seeds: bool = option(
        False,
        "also explain runs in other subfolders that differ by their seed alone; keywords are those that most agree on",
    )
    show_texts: bool = option(
        False, "keep the texts with their words' scores, for the report of post_eval.py; mind whom you give it to"
    )
