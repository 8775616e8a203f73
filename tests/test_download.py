"""download_model.py against a small server on the loopback that answers the hub's API."""

import json
import threading
import time

import pytest

from tests.factories import COMMITS, FAST, Hub
from tests.processes import finish, start

pytestmark = pytest.mark.slow

TOKEN = "hf_secretsecretsecretsecretsecret"


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
