"""What tests are made of: tiny models, texts, results and a hub, written on the spot."""

import csv
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from demo.build import make_texts
from demo.language_models import build_lm
from utils.evaluation.metrics import (
    confidence_intervals,
    confusion_matrix,
    per_register_metrics,
    rare_registers,
    summary_metrics,
)
from utils.pipeline.config import LABELS

TEXTS = [text for _, text in make_texts("en", 80, random.Random(1))]
SHORT = [" ".join(text.split()[: 4 + index % 9]) for index, text in enumerate(TEXTS)]
FILES = {"train": SHORT[:40], "dev": SHORT[40:56], "test": SHORT[56:70]}
KINDS = {"gpt2": "lm", "bert": "mlm", "t5": "seq2seq"}
# Options of finetune_lm.py for a training of a second.
TRAIN = ["--train_file", "train.txt.gz", "--validation_file", "dev.txt.gz", "--seed", "1"]
TRAIN += ["--train_optimizer_kwargs.lr", "1e-3", "--per_device_train_batch_size", "16"]


def write_texts(path: Path, lines: list[str]) -> None:
    """Write a gzipped file of lines."""
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def build_inputs(folder: Path) -> Path:
    """Write the three models, files of examples for them, and metadata of the test file."""
    for kind in KINDS:
        build_lm(kind, TEXTS, folder / kind)
    for name, texts in FILES.items():
        write_texts(folder / f"{name}.txt.gz", texts)
    lines = [json.dumps({"item": 10 * index, "group": f"g{index % 3}"}) for index in range(len(FILES["test"]))]
    write_texts(folder / "test_metadata.json.gz", lines)
    return folder


# Settings of small classifiers of every family that can be packed.
_SMALL = {
    **{"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 37, "max_position_embeddings": 600},
}
_GROUPED = _SMALL | {"num_key_value_heads": 1}
_DISTILBERT = {
    "vocab_size": 99,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 37,
    "max_position_embeddings": 600,
}
CLASSIFIERS = {
    **dict.fromkeys(("Bert", "Roberta", "XLMRoberta", "XLMRobertaXL", "Camembert"), _SMALL),
    "Electra": _SMALL | {"embedding_size": 16},
    "DistilBert": _DISTILBERT,
    # One layer looks at all tokens, the next at those near by.
    "ModernBert": _SMALL | {"global_attn_every_n_layers": 2, "local_attention": 128},
    "GPT2": {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 600},
    "Llama": _GROUPED,
    "Mistral": _GROUPED | {"sliding_window": 100},
    "Qwen2": _GROUPED,
    "Qwen3": _GROUPED | {"head_dim": 16},
}


def classifier_config(name, **changed):
    """The configuration of a small classifier of a family, with three labels."""
    import transformers

    settings = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "num_labels": 3} | CLASSIFIERS[name]
    if name == "ModernBert":
        settings |= {"cls_token_id": 0, "sep_token_id": 2}
    return getattr(transformers, f"{name}Config")(**settings | changed)


class PaddingTokenizer:
    """What collators ask of a tokenizer."""

    pad_token_id = 1
    padding_side = "right"


# On both sides of a window's 128, the longest, and the shortest.
PACKED_LENGTHS = [512, 129, 128, 128, 127, 2, 1]


def both_batches(config, lengths=PACKED_LENGTHS):
    """Random texts as a padded batch and as a packed one, without labels."""
    import torch

    from utils.data.batching import PackingCollator, PaddingCollator
    from utils.models.packing import padding_position

    generator = torch.Generator().manual_seed(0)
    rows = [{"input_ids": torch.randint(4, 99, (length,), generator=generator).tolist()} for length in lengths]
    if config.model_type not in ("gpt2", "llama", "mistral", "qwen2", "qwen3"):
        # A text that says "<pad>"; in heads that read the last token that is not, it would end there.
        rows[0]["input_ids"][-3] = PaddingTokenizer.pad_token_id
    return PaddingCollator(PaddingTokenizer())(rows), PackingCollator(PaddingTokenizer(), padding_position(config))(
        rows
    )


PROJECT = Path(__file__).resolve().parent.parent
# A hierarchy, and the words that give its labels away.
NESTED = {
    "IN": {"name": "Informational", "sub": {"dt": "Description of a thing", "en": "Encyclopedia article"}},
    "HI": {"name": "How-to", "sub": {"re": "Recipe"}},
    "OP": "Opinion",
}
GIVEAWAYS = {"IN": "river", "dt": "stone", "en": "century", "HI": "first", "re": "water", "OP": "believe"}
LABEL_SETS = ("IN", "IN dt", "IN en", "HI", "HI re", "OP", "IN OP", "HI IN re", "OP HI")


def write_label_sets(folder: Path, langs=("en", "fr"), sizes=(180, 108)) -> Path:
    """Write a register corpus whose words give away several labels of a text at once; returns its folder."""
    (folder / "info").mkdir(parents=True)
    (folder / "info" / "reg_abbv.json").write_text(json.dumps(NESTED))
    (folder / "info" / "lang2name.json").write_text(json.dumps({"en": "english", "fr": "french"}))
    for lang in langs:
        for split, size in zip(("train", "test"), sizes, strict=True):
            generator = random.Random(f"{lang} {split}")
            path = folder / "corpus" / split / f"{lang}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                for number in range(size):
                    labels = LABEL_SETS[number % len(LABEL_SETS)]
                    words = [GIVEAWAYS[label] for label in labels.split() for _ in range(3)]
                    words += generator.choices(("the", "of", "and", "with", "year"), k=8)
                    generator.shuffle(words)
                    csv.writer(file, delimiter="\t", lineterminator="\n").writerow([labels, " ".join(words)])
    return folder


REAL_CORPUS = os.environ.get("CORPUS_PATH")
MULTILABEL_CORPUS = os.environ.get("MULTILABEL_PATH")


FAST = ["--num_epochs", "2", "--learning_rate", "1e-3", "--attention_dropout", "0", "--batch_size", "8"]


# Numbers that are compared must not depend on whether this machine computes in bf16.
FAST += ["--precision", "fp32"]


# Names the model of the fixture `model`.
TRAINED = ["--model_name", "tiny", "--train_langs", "en-fr", "--precision", "fp32"]


def skip(reason: str) -> None:
    """Skip a test that this machine cannot run; with $NO_SKIPS set, as in continuous integration, fail it."""
    (pytest.fail if os.environ.get("NO_SKIPS") else pytest.skip)(reason)


@dataclass
class Inputs:
    """A corpus, a registry whose model is called tiny, and where results go."""

    corpus: Path
    registry: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"CORPUS_PATH": str(self.corpus), "MODEL_REGISTRY": str(self.registry)}


def working_copy(made: Inputs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Work in this folder with copies of the models and results of others; returns the inputs."""
    for name in ("models", "outputs"):
        shutil.copytree(made.folder / name, folder / name)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return replace(made, folder=folder)


def typed_registry(inputs: Inputs) -> Path:
    """Write a registry that has the tiny model for texts and, as tiny-ipa, for phonemes; returns its path."""
    import json

    content = json.loads(inputs.registry.read_text(encoding="utf-8"))
    content["tiny"]["checkpoint"] = str(inputs.registry.parent / "tiny-xlmr")
    path = inputs.folder / "typed.json"
    path.write_text(json.dumps(content | {"tiny-ipa": content["tiny"]}), encoding="utf-8")
    return path


WORDS = {
    "World": ["minister", "election", "border", "treaty", "embassy", "parliament"],
    "Sports": ["match", "season", "coach", "striker", "league", "medal"],
    "Business": ["shares", "profit", "merger", "market", "bank", "dividend"],
    "Sci/Tech": ["software", "satellite", "browser", "chip", "genome", "network"],
}


def write_news(folder: Path, sizes=(160, 60)) -> Path:
    """Write headlines of four kinds in the layout of AG News's official files."""
    folder.mkdir()
    for split, size in zip(("train", "test"), sizes, strict=True):
        generator = random.Random(split)
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for number in range(size):
                label = LABELS[number % 4]
                words = generator.sample(WORDS[label], 3)
                writer.writerow([number % 4 + 1, f'The {words[0]} "{number}"', f"A {words[1]} and #39;a\\{words[2]}"])
    return folder


def small_model_without_dropout(inputs):
    """The small model with all its dropout rates at 0, in a registry of its own."""

    folder = inputs.folder / "plain"
    shutil.copytree(inputs.registry.parent / "tiny-xlmr", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    registry = inputs.folder / "plain.json"
    registry.write_text(json.dumps({"tiny": {"checkpoint": str(folder), "max_length": 64}}))
    return registry


def rows_of(path):
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def only_folder(here, train="train", model="gpt2"):
    (folder,) = (here / "outputs" / train / model).glob("2*")
    return folder


REGISTERS = ["IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD"]


LANGS = sorted(
    {"al", "ar", "ca", "de", "en", "es", "fa", "fi", "fr", "hi", "id", "jp", "no"}
    | {"pt", "ru", "sv", "tr", "ur", "zh"}
)


def write_results(folder, model, train_langs, eval_langs, num_texts=400):
    """Write the results of an imagined model, in the files that evaluate.py and finetune.py write."""
    generator = np.random.default_rng(len(model + train_langs))
    run = folder / f"{model}-{train_langs}"
    (run / "eval").mkdir(parents=True)
    for lang in eval_langs:
        labels = generator.choice([0, 1, 2, 3, 4, 6], size=num_texts)
        predictions = np.where(generator.random(num_texts) < 0.7, labels, generator.integers(0, 7, size=num_texts))
        matrix = confusion_matrix(labels, predictions, 8)
        result = {
            "model": model,
            "train_langs": train_langs,
            "eval_lang": lang,
            "num_texts": num_texts,
            **{name: float(value) for name, value in summary_metrics(matrix).items()},
            "registers": REGISTERS,
            "per_register": per_register_metrics(matrix, REGISTERS),
            "confusion_matrix": matrix.tolist(),
            "confidence_intervals": confidence_intervals(matrix, 1, 100),
            "rare_registers": rare_registers(matrix.sum(1), REGISTERS),
        }
        (run / "eval" / f"{lang}.json").write_text(json.dumps(result))
    counts = dict(zip(REGISTERS, [9_000, 12_345, 7, 4_100, 800, 3, 1_500, 0], strict=True))
    record = {"status": "complete", "train_registers": counts, "validation_registers": counts}
    (run / "run.json").write_text(json.dumps(record))


def texts_of(figure):
    """Every text of a figure with its box in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


def check_layout(figure):
    """No text leaves the figure, no two texts overlap."""
    boxes = texts_of(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{text!r} leaves the figure"
    corners = np.array([[box.x0, box.y0, box.x1, box.y1] for _, box in boxes])
    overlap_x = np.minimum(corners[:, None, 2], corners[None, :, 2]) - np.maximum(
        corners[:, None, 0], corners[None, :, 0]
    )
    overlap_y = np.minimum(corners[:, None, 3], corners[None, :, 3]) - np.maximum(
        corners[:, None, 1], corners[None, :, 1]
    )
    first, second = np.nonzero(np.triu((overlap_x > 1) & (overlap_y > 1), k=1))
    assert not len(first), [(boxes[i][0], boxes[j][0]) for i, j in zip(first, second, strict=True)]


# Pages that users read, but for the changelog, whose links are those of the root.
PAGES = [
    *(PROJECT / name for name in ("README.md", "README.fr.md")),
    *sorted(path for path in (PROJECT / "docs").rglob("*.md") if not path.is_symlink()),
]
ENGLISH = "\n".join(path.read_text(encoding="utf-8") for path in PAGES if not path.name.endswith(".fr.md"))


def commands_of(pattern):
    """The commands of all pages that a regular expression matches, each once."""
    found = [line.strip() for line in ENGLISH.splitlines() if re.match(f"    {pattern}", line)]
    return list(dict.fromkeys(found))


COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(ThreadingHTTPServer):
    """A hub with one repository, someone/tiny, whose revision v1 has an older README."""

    def __init__(self, folder, handler=None):
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.files |= {
            "pytorch_model.bin": b"a pickle that must not be fetched",
            "README.md": b"a card",
            "onnx/model.onnx": b"another format",
        }
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.stalled = threading.Event()
        self.stall_weights = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        hub.requests.append((self.command, self.path, dict(self.headers)))
        path = self.path.split("?")[0]
        if path.startswith("/api/models/someone/tiny"):
            revision = next((path.rpartition(part)[2] for part in ("/revision/", "/tree/") if part in path), "main")
            commit = COMMITS.get(revision, revision if revision in COMMITS.values() else None)
            if commit and "/tree/" in path:
                entries = self.server.files.items()
                return self.reply(
                    json.dumps(
                        [
                            {"type": "file", "path": name, "size": len(content), "oid": "c" * 40}
                            for name, content in entries
                        ]
                    ).encode()
                )
            if commit:
                siblings = [{"rfilename": name} for name in hub.files]
                return self.reply(json.dumps({"id": "someone/tiny", "sha": commit, "siblings": siblings}).encode())
        elif path.startswith("/someone/tiny/resolve/"):
            commit, _, name = path.removeprefix("/someone/tiny/resolve/").partition("/")
            if name in hub.files:
                return self.send_file(hub.files[name], COMMITS.get(commit, commit), body, name)
        code = "RevisionNotFound" if "someone/tiny" in path else "RepoNotFound"
        return self.reply(b'{"error": "not found"}', 404, {"X-Error-Code": code})

    def send_file(self, content, commit, body, name):
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        begin = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        content = content[begin:]
        if body and name == "model.safetensors" and self.server.stall_weights:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.server.stalled.set()
            # Until the client goes away.
            self.rfile.read()
            return
        self.reply(content if body else b"", 206 if begin else 200, headers, len(content))

    def reply(self, content, status=200, headers=None, length=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


def rows_of_tokens(tokens, decode=str):
    """Surprisals as dictionaries, as their table has them, None where it is empty."""
    rows = tokens.to_arrow(decode).to_pylist()
    flags = ("token_is_start_of_word", "token_is_word", "token_is_special", "token_is_masked", "truncated")
    return [row | {name: row[name] == "True" for name in flags} for row in rows]


def rows_of_file(table, model, data, batch_size, more=None):
    """The surprisals of a model's texts as dictionaries."""
    from utils.evaluation.surprisal import file_tokens

    return rows_of_tokens(file_tokens(table, model, data, batch_size, more), table.decode)


def read_runs(folder):
    """The records of all runs below a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("run.json"))]
