"""download_model.py against a small server on the loopback that answers the hub's API."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import FAST, finish, start

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
TOKEN = "hf_secretsecretsecretsecretsecret"


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


@pytest.fixture
def hub(small):
    server = Hub(small / "tiny-xlmr")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def download(hub, tmp_path):
    """Run download_model.py with a registry of hub models and an empty cache."""

    def run(*arguments, registry=None, status=0, **environment):
        path = tmp_path / "models.json"
        path.write_text(json.dumps(registry or {"tiny": "someone/tiny"}))
        process = start(
            "download_model.py", *arguments, cwd=tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hub"),
            MODEL_REGISTRY=str(path), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1", **environment,
        )  # fmt: skip
        output = finish(process, status)
        assert TOKEN not in output
        assert "Traceback" not in output
        return output

    return run


def fetched(hub):
    return {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}


def test_fetches_one_weight_format_and_works_offline_afterwards(hub, download, inputs, tmp_path):
    assert "not downloaded" in download("--check", status=1)
    assert not hub.requests, "--check asks nobody"
    output = download()
    assert "complete" in output
    assert fetched(hub) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert any(
        headers.get("authorization", headers.get("Authorization")) == f"Bearer {TOKEN}" for *_, headers in hub.requests
    )

    hub.requests.clear()
    assert "tiny  complete: " in download("--check")
    arguments = ["--model_name", "tiny", "--train_langs", "en", "--num_epochs", "1", *FAST[2:]]
    environment = {
        "HF_HOME": str(tmp_path / "hub"),
        "HF_ENDPOINT": hub.url,
        "MODEL_REGISTRY": str(tmp_path / "models.json"),
    }
    finish(start("finetune.py", *arguments, "--max_length", "64", cwd=tmp_path, **environment))
    assert not hub.requests, "training on the cached model asks nobody"


def test_a_killed_download_goes_on(hub, download, tmp_path):
    (tmp_path / "models.json").write_text('{"tiny": "someone/tiny"}')
    hub.stall_weights = True
    process = start(
        "download_model.py", cwd=tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hub"),
        MODEL_REGISTRY=str(tmp_path / "models.json"), HF_HUB_DISABLE_XET="1",
    )  # fmt: skip
    assert hub.stalled.wait(60)
    # The small files come from other threads, at the same time.
    time.sleep(1)
    process.kill()
    process.wait()
    assert "weights are missing" in download("--check", status=1)
    hub.stall_weights = False
    hub.requests.clear()
    assert "complete" in download()
    assert fetched(hub) == {"model.safetensors"}, "what is there is not fetched again"


def test_revisions_are_respected(hub, download, tmp_path):
    download(registry={"tiny": {"checkpoint": "someone/tiny", "revision": "v1"}})
    assert {path.split("/")[4] for _, path, _ in hub.requests if "/resolve/" in path} == {COMMITS["v1"]}
    assert "complete" in download("--check", registry={"tiny": {"checkpoint": "someone/tiny", "revision": "v1"}})
    assert "not downloaded" in download("--check", status=1), "main is another revision"
    output = download(registry={"tiny": {"checkpoint": "someone/tiny", "revision": "v9"}}, status=1)
    assert "cannot fetch someone/tiny at revision v9" in output


def test_one_missing_model_does_not_cost_the_others(hub, download, small):
    registry = {"gone": "someone/gone", "tiny": "someone/tiny", "local": str(small / "tiny-xlmr")}
    output = download(registry=registry, status=1)
    assert "cannot fetch someone/gone" in output
    assert output.count("complete: ") == 2
    output = download("--models", "tiny", registry=registry)
    assert "gone" not in output
    assert "did you mean 'tiny'" in download("--models", "tinny", registry=registry, status=2)
