"""Small language databases and datasets in every form."""

import csv
import json
from pathlib import Path

import datasets

ENTRY = {
    "dataset": "data",
    "train_features": ["title", "body"],
    "eval_feature": "label",
    "splits": ["train", "dev"],
    "task_type": "classification",
    "classes": 2,
}
# What readers of tables like to change.
TEXTS = ["NA", "007", 'say "no"', "two\nlines", "a\u2028b", "tab\there", "", " spaces "]
LABELS = ["yes", "no"] * 4


def database(folder: Path, **changes) -> Path:
    """Write a database with the language xx, whose task t has one dataset."""
    content = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    path = folder / "database.json"
    path.write_text(json.dumps({"xx": {"t": {"one": content}}}), encoding="utf-8")
    return path


def rows(labels=LABELS) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"title": TEXTS, "body": TEXTS[::-1], "label": labels})


def write(folder: Path, kind: str, dataset: datasets.Dataset) -> None:
    """Write a dataset as both splits of a folder."""
    folder.mkdir(exist_ok=True)
    if kind == "saved":
        datasets.DatasetDict({"train": dataset, "dev": dataset}).save_to_disk(folder)
        return
    for split in ("train", "dev"):
        path = folder / f"{split}.{kind}"
        if kind == "parquet":
            dataset.to_parquet(path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in dataset), encoding="utf-8")
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, dataset.column_names, delimiter="\t" if kind == "tsv" else ",")
                writer.writeheader()
                writer.writerows(dataset)
