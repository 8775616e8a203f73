"""Exported models run without PyTorch; pushed ones arrive whole, with their card."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import predict
from tests.factories import FAST, Handler, Hub, Inputs
from tests.processes import finish, start
from utils.prediction import export

pytestmark = pytest.mark.slow
TRAINED = ["--model_name", "tiny", "--train_langs", "en"]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", folder)
    finish(start("finetune.py", *TRAINED, *FAST, "--pooling", "mean", cwd=folder, **made.environment))
    return folder


@pytest.fixture
def model(trained, inputs):
    """A trained model, whose head reads the mean of all tokens, in an empty folder."""
    shutil.copytree(trained / "models", inputs.folder / "models")
    return inputs


# What a program without PyTorch does with an exported model; as in the README.
PROGRAM = """
import json, sys
sys.modules["torch"] = None
import numpy as np
from tokenizers import Tokenizer

folder, texts = sys.argv[1], sys.argv[2:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
config = json.load(open(f"{folder}/config.json"))
tokenizer.enable_truncation(64)
tokenizer.enable_padding(pad_id=config["pad_token_id"])
batch = tokenizer.encode_batch(texts)
inputs = {"input_ids": np.array([x.ids for x in batch]), "attention_mask": np.array([x.attention_mask for x in batch])}
if folder.endswith("onnx"):
    import onnxruntime
    logits = onnxruntime.InferenceSession(f"{folder}/model.onnx").run(["logits"], inputs)[0]
else:
    import openvino
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    logits = openvino.Core().compile_model(f"{folder}/model.xml", "CPU", hint)(inputs)["logits"]
scores = np.exp(logits / config["calibration_temperature"])
shares = scores / scores.sum(1, keepdims=True)
print(json.dumps([[config["id2label"][str(row.argmax())], float(row.max())] for row in shares]))
"""


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_exported_model_runs_without_pytorch(model, invoke, target):
    status, output, errors = invoke(predict, *TRAINED, "--export", target)
    assert status == 0, errors
    assert re.search(r"100 texts: probabilities differ from the original's by \de-\d\d at most", output)
    texts = ["The minister said on Friday", "a", "word " * 500]
    command = [sys.executable, "-c", PROGRAM, f"models/tiny-en/{target}", *texts]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    _, output, _ = invoke(predict, *TRAINED, "--precision", "fp32", "--format", "json", "--text", *texts)
    for (register, share), row in zip(found, map(json.loads, output.splitlines()), strict=True):
        assert register == row["register"] and share == pytest.approx(row["probability"], abs=1e-5)
    assert not list(Path("models/tiny-en").rglob("*.unfinished"))


def test_a_wrong_export_is_not_kept(model, invoke, monkeypatch):
    def wrong(target, path):
        return lambda ids, mask: np.eye(8)[ids[:, 1] % 8] * 9

    monkeypatch.setattr(export, "_load", wrong)
    status, _, errors = invoke(predict, *TRAINED, "--export", "onnx", "--output_dir", "exported")
    assert status == 1 and re.search(r"the exported model's probabilities are up to 0\.\d+ from the original's", errors)
    assert list(Path("exported").iterdir()) == []


def test_texts_to_compare_with_may_be_given(model, invoke):
    given = ["--input", str(model.corpus / "corpus/test/en.tsv"), "--output_dir", "exported"]
    status, output, errors = invoke(predict, *TRAINED, "--export", "onnx", *given)
    assert status == 0 and output.startswith("24 texts: "), errors
    assert Path("exported/model.onnx").is_file()


def test_what_is_missing_is_named(model, invoke, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    status, _, errors = invoke(predict, *TRAINED, "--export", "openvino")
    assert status == 2 and "--export openvino needs openvino; pip install -e '.[export]'" in errors


class UploadHub(Handler):
    """A hub that takes repositories and files, as huggingface_hub sends them."""

    uploaded: dict[str, bytes]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.reply(b'{"error": "Invalid credentials in Authorization header"}', 401)
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self.send_json({"url": f"{self.server.url}/someone/new", "id": "someone/new"})
        if self.path == "/api/models/someone/new/preupload/main":
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in files
            ]
            return self.send_json({"files": modes})
        if self.path == "/someone/new.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for entry in objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/put/{entry['oid']}"}}
            return self.send_json({"transfer": "basic", "objects": objects})
        if self.path.startswith("/api/models/someone/new/commit/main"):
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            return self.send_json(
                {
                    "commitUrl": f"{self.server.url}/someone/new/commit/{'d' * 40}",
                    "commitOid": "d" * 40,
                    "pullRequestUrl": None,
                    "hookOutput": "",
                }
            )
        return self.send_json({})

    def do_PUT(self):
        self.server.put[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(b"")

    def send_json(self, content):
        self.reply(json.dumps(content).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def hub(small):
    server = Hub(small / "tiny-xlmr", UploadHub)
    server.put, server.created, server.commit = {}, None, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def push(hub, model, token, status=0):
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [*TRAINED, "--push_to_hub", "someone/new"]
    return finish(start("predict.py", *command, cwd=model.folder, **environment), status)


def test_a_model_and_its_card_are_uploaded(model, hub):
    import base64
    import hashlib

    folder = Path("models/tiny-en")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/state.bin").write_bytes(b"not for others")
    output = push(hub, model, "hf_right")
    assert f"uploaded models/tiny-en\nto       {hub.url}/someone/new" in output and "hf_right" not in output
    assert hub.created["name"] == "new" and hub.created["visibility"] == "private"
    weights = (folder / "model.safetensors").read_bytes()
    assert hub.put[hashlib.sha256(weights).hexdigest()] == weights
    sent = {x["value"]["path"]: x for x in hub.commit if x["key"] in ("file", "lfsFile")}
    assert set(sent) == {path.name for path in folder.iterdir() if path.is_file()}
    card = base64.b64decode(sent["README.md"]["value"]["content"]).decode()
    assert card == (folder / "README.md").read_text() and "python predict.py --model MODEL" in card


def test_a_hub_that_refuses_is_quoted(model, hub):
    output = push(hub, model, "hf_wrong", status=1)
    assert "predict.py: error: cannot upload models/tiny-en to someone/new (" in output and "hf_wrong" not in output
    assert "Traceback" not in output


def test_a_model_without_a_card_is_not_uploaded(model, invoke):
    Path("models/tiny-en/README.md").unlink()
    status, _, errors = invoke(predict, *TRAINED, "--push_to_hub", "someone/new")
    assert status == 2 and "models/tiny-en has no model card" in errors
