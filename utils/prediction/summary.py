"""What a user is told of the labels of a corpus."""

from typing import TYPE_CHECKING, Any

from utils.cli.values import plural
from utils.prediction.folder import LabelFolder

if TYPE_CHECKING:
    from utils.prediction.corpus import Outcome

# A label of a lower probability is one of low confidence.
LOW_CONFIDENCE = 0.5
REGISTERS_SHOWN = 12


def describe_overview(outcome: "Outcome", overview: dict[str, Any], folder: LabelFolder) -> str:
    """Return the lines that say what was labelled, what came out, and where it is."""
    texts = overview["num_texts"]
    speed = f" ({overview['texts_per_second']:,.1f} texts/s)" if overview["texts_per_second"] else ""
    counts = [
        f"{plural(len(outcome.labelled), 'file')} labelled",
        *([f"{len(outcome.before)} labelled before"] if outcome.before else []),
        *([f"{len(outcome.elsewhere)} with parts for other processes"] if outcome.elsewhere else []),
        *([f"{len(outcome.problems)} not labelled"] if outcome.problems else []),
    ]
    lines = [", ".join(counts), f"{texts:,} texts in {plural(len(overview['files']), 'file')}{speed}"]
    if overview["num_bad_rows"]:
        lines.append(f"{overview['num_bad_rows']:,} rows without a label: {folder.bad_rows}")
    if texts:
        shown = list(overview["registers"].items())[:REGISTERS_SHOWN]
        lines.append(", ".join(f"{name} {count / texts:.1%}" for name, count in shown))
        if overview.get("num_without_register"):
            lines.append(f"without a register: {overview['num_without_register'] / texts:.1%} of the texts")
        low = overview["low_confidence"]
        lines.append(f"probability below {low['below']}: {low['share']:.1%} of the texts")
        cut = overview["num_truncated"]
        lines.append(f"longer than the model reads: {cut / texts:.1%} of the texts")
    if overview["unfinished"]:
        lines.append(f"not finished: {plural(len(overview['unfinished']), 'file')}")
    lines.append(f"labels    {folder.path}/**/*.{folder.output_format}")
    lines.append(f"overview  {folder.overview}")
    return "\n".join(lines)


def describe_problems(outcome: "Outcome") -> list[str]:
    """Return a line for each file that could not be labelled."""
    return [str(problem) for problem in outcome.problems.values()]
