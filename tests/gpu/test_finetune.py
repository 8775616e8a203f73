"""finetune.py and evaluate.py on a GPU."""

import json

import evaluate
import finetune

OPTIONS = ["--model_name", "tiny", "--train_langs", "en-fr", "--num_epochs", "2", "--batch_size", "8"]
OPTIONS += ["--learning_rate", "1e-3"]


def trained(invoke, folder, *arguments):
    status, _, err = invoke(finetune, *OPTIONS, "--output_dir", f"{folder}/outputs", "--models_dir", folder, *arguments)
    assert status == 0, err
    outputs = folder / "outputs" / "tiny-en-fr"
    return [json.loads((outputs / name).read_text()) for name in ("run.json", "train.json")]


def test_without_attention_dropout_nothing_is_padded(inputs, invoke, tmp_path):
    run, train = trained(invoke, tmp_path, "--attention_dropout", "0")
    assert run["precision"] == "bf16" and "NVIDIA" in run["device"]
    assert train["padding_fraction"] == 0
    assert train["epochs"][1]["loss"] < train["epochs"][0]["loss"]
    status, _, err = invoke(
        evaluate, "--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "en", "es",
        "--output_dir", f"{tmp_path}/outputs", "--models_dir", tmp_path,
    )  # fmt: skip
    assert status == 0, err
    result = json.loads((tmp_path / "outputs" / "tiny-en-fr" / "eval" / "en.json").read_text())
    assert result["num_texts"] == 24 and result["precision"] is not None


def test_small_packs_add_up(inputs, invoke, tmp_path):
    """The same loss of the first epoch, nearly, in one pack and in several."""
    losses = []
    for index, budget in enumerate((100_000, 100)):
        _, train = trained(
            invoke, tmp_path / str(index), "--attention_dropout", "0", "--train_token_budget", str(budget)
        )
        losses.append(train["epochs"][0]["loss"])
    assert abs(losses[0] - losses[1]) < 0.05
