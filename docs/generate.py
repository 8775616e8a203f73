"""Writes docs/reference/options.md and options.fr.md from the dataclasses that the scripts parse.

    python docs/generate.py
    python docs/generate.py --check

`--check` writes nothing and says whether they are up to date.
"""

import argparse
import dataclasses
import importlib
import sys
import typing
from pathlib import Path
from types import NoneType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.cli.options import default_of, option_groups  # noqa: E402
from utils.jobs.options import OPTIONS as SUBMIT_OPTIONS  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "options.md"
# Scripts, in the order in which they are needed, and their classes of options.
SCRIPTS = {
    "convert_corpus.py": "convert_corpus.ConvertOptions",
    "check_corpus.py": "check_corpus.CheckOptions",
    "download_model.py": "download_model.DownloadOptions",
    "finetune.py": "finetune.FinetuneOptions",
    "evaluate.py": "evaluate.EvaluateOptions",
    "post_eval.py": "post_eval.PostEvalOptions",
    "predict.py": "predict.PredictOptions",
    "explain.py": "explain.ExplainOptions",
    "finetune_lm.py": "finetune_lm.FinetuneLmOptions",
    "grid_search.py": "grid_search.GridOptions",
    "finetuning_generator.py": "finetuning_generator.GeneratorOptions",
    "run_pipeline.py": "run_pipeline.PipelineOptions",
    "utils.data.language_database": "utils.data.language_database.ListOptions",
    "utils.data.transcribe": "utils.data.transcribe.TranscribeOptions",
}
TEXTS = {
    "en": {
        "title": "Options",
        "intro": "All options of all scripts, as `--help` explains them. Both `--option_name` and "
        "`--option-name` work; [files with options](config-files.md) use the same names.",
        "head": "| option | default | what it is for |",
        "required": "required",
    },
    "fr": {
        "title": "Options",
        "intro": "Toutes les options de tous les scripts, telles que `--help` les explique, en anglais. "
        "`--option_name` et `--option-name` sont équivalents ; [les fichiers d'options](config-files.fr.md) "
        "emploient les mêmes noms.",
        "head": "| option | valeur par défaut | à quoi elle sert |",
        "required": "obligatoire",
    },
}


def options_of(path: str) -> type:
    """Return a class by its import path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def choices(field: dataclasses.Field) -> list[Any]:
    """Return the values that an option may have, if these are few."""
    if field.metadata.get("choices"):
        return list(field.metadata["choices"])
    kinds = [field.type, *typing.get_args(field.type)]
    kinds += [
        inner for kind in kinds for inner in typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal
    ]
    literals = [kind for kind in kinds if typing.get_origin(kind) is typing.Literal]
    return [value for kind in literals[:1] for value in typing.get_args(kind)]


def shown_default(field: dataclasses.Field, required: str) -> str:
    """Return what an option is when it is not given; empty where that is nothing."""
    if dataclasses.MISSING is field.default is field.default_factory:
        return required
    default = default_of(field)
    if default is None or default is False or default in ("", [], {}):
        return ""
    if isinstance(default, dict) or callable(default):
        return "…"
    text = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
    # Files of the repository, wherever it is.
    return f"`{text.removeprefix(f'{ROOT}/')}`"


def row(field: dataclasses.Field, required: str) -> str:
    """Return an option's row."""
    name = field.name if field.metadata.get("positional") else f"--{field.name}"
    text = field.metadata["help"].replace("%%", "%").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    values = [str(value) for value in choices(field) if value not in (None, NoneType)]
    if values:
        text += f": {', '.join(f'`{value}`' for value in values)}"
    return f"| `{name}` | {shown_default(field, required)} | {text} |"


def section(title: str, options_class: type, texts: dict[str, str]) -> list[str]:
    """Return the lines of a script: a table for each group."""
    titles = getattr(options_class, "GROUP_TITLES", {})
    lines = [f"## {title}", ""]
    for group, fields in option_groups(options_class).items():
        rows = [row(field, texts["required"]) for field in fields]
        lines += [f"**{titles.get(group, group)}**", "", texts["head"], "| --- | --- | --- |", *rows, ""]
    return lines


def pages() -> dict[Path, str]:
    """Return both pages by their paths."""
    found = {}
    for language, texts in TEXTS.items():
        lines = [f"# {texts['title']}", "", texts["intro"], ""]
        for script, path in SCRIPTS.items():
            lines += section(script, options_of(path), texts)
        for kind, options_class in SUBMIT_OPTIONS.items():
            lines += section(f"submit_{kind}_jobs.sh", options_class, texts)
        path = PAGE if language == "en" else PAGE.with_suffix(f".{language}.md")
        found[path] = "\n".join(lines).rstrip("\n") + "\n"
    return found


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say whether they are up to date")
    check = parser.parse_args().check
    stale = {path: text for path, text in pages().items() if not path.is_file() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{'out of date: ' if check else 'options  '}{path.relative_to(ROOT)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
