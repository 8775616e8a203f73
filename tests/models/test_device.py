"""What is chosen for the machine: number format, tokens at once."""

from types import SimpleNamespace

import pytest
import torch

from tests.factories import classifier_config
from utils.errors import UserError
from utils.models.device import BF16_WIDTH, autocast, choose_precision, to_device, train_token_budget
from utils.models.options import PRECISION_HELP

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "width", "expected"),
    [
        ({"avx512_bf16": True}, 384, "bf16"),
        ({"amx_bf16": True}, 192, "bf16"),
        # The conversions would take longer than the products.
        ({"avx512_bf16": True}, 64, "fp32"),
        ({"avx2": True, "avx512_bf16": False}, 1024, "fp32"),
    ],
)
def test_bf16_is_chosen_where_it_is_faster(monkeypatch, capabilities, width, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_precision("auto", SimpleNamespace(hidden_size=width)) == expected
    assert choose_precision("bf16", SimpleNamespace(hidden_size=width)) == "bf16"
    with pytest.raises(UserError, match="--precision fp16 needs a GPU"):
        choose_precision("fp16", SimpleNamespace(hidden_size=width))


@pytest.mark.parametrize("name", ["GPT2", "DistilBert", "XLMRoberta"])
def test_the_width_is_known_whatever_the_family_calls_it(monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_precision("auto", classifier_config(name)) == "fp32"


def test_gpus_compute_in_bf16_whatever_the_width(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_precision("auto", SimpleNamespace(hidden_size=64)) == "bf16"


def test_tokens_at_once_follow_the_memory(monkeypatch):
    model = SimpleNamespace(
        config=SimpleNamespace(num_hidden_layers=12, hidden_size=768), parameters=lambda: [torch.empty(278_000_000)]
    )
    assert train_token_budget(model, CPU) == 8192
    tokens = {}
    for gigabytes in (12, 24, 80):
        properties = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, properties=properties: properties)
        tokens[gigabytes] = train_token_budget(model, torch.device("cuda"))
    # XLM-R-base: weights, gradients and AdamW's averages take 4.4 GB.
    assert 5_000 < tokens[12] < tokens[24] < tokens[80] < 100_000
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**30))
    assert train_token_budget(model, torch.device("cuda")) == 1024, "it may fail, but it is tried"


def test_the_help_names_the_width_from_which_bf16_is_chosen():
    assert f"models at least {BF16_WIDTH} wide" in " ".join(PRECISION_HELP.split())


@pytest.mark.parametrize("bf16", [False, True])
def test_half_precisions_are_autocast_and_int8_where_bf16_is_fast(monkeypatch, bf16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
    enabled = {precision: autocast(CPU, precision)._enabled for precision in ("fp32", "int8", "bf16")}
    assert enabled == {"fp32": False, "int8": bf16, "bf16": True}


def test_numbers_of_a_batch_stay_numbers():
    batch = to_device({"input_ids": torch.ones(1, 2), "max_length_q": 2}, CPU)
    assert batch["max_length_q"] == 2 and batch["input_ids"].device == CPU
