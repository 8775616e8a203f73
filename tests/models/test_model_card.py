"""The README.md that is saved with every trained model, read as the hub of Hugging Face reads it."""

import json
import threading

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import evaluate
import finetune
import finetune_lm
from tests.factories import FAST, only_folder
from utils.models.model_card import MARK, plain, write_classifier_card
from utils.runs.files import read_json, write_text
from utils.runs.layout import RunLayout

LONE = ["--num_epochs", "1", "--model_name", "tiny", "--train_langs", "en-fr"]


@pytest.fixture
def trained(inputs, invoke):
    registry = json.loads(inputs.registry.read_text())
    registry["tiny"] |= {"checkpoint": str(inputs.registry.parent / "tiny-xlmr"), "license": "mit"}
    (inputs.folder / "registry.json").write_text(json.dumps(registry))
    status, _, errors = invoke(finetune, *FAST, *LONE, "--model_registry", "registry.json")
    assert status == 0, errors
    return inputs.folder


def test_the_card_of_a_classifier(trained, invoke):
    path = trained / "models/tiny-en-fr/README.md"
    card = ModelCard.load(path)
    assert (card.data.license, card.data.language) == ("mit", ["en", "fr"])
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-classification", "transformers")
    assert card.data.base_model is None, "a folder of this machine says nothing to others"
    assert str(trained) not in card.content
    assert "Not evaluated on test texts yet." in card.text
    record, report = (read_json(trained / "outputs/tiny-en-fr" / name) for name in ("run.json", "train.json"))
    best = next(epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"])["validation"]
    assert f"macro F1 {best['macro_f1']:.3f}" in card.text
    for register, count in record["train_registers"].items():
        assert f"| {register} | {count:,} | {record['validation_registers'][register]:,} |" in card.text
    assert record["data"]["files"][0]["sha256"][:12] in card.text
    assert "| learning_rate | 0.001 |" in card.text and "| seed | 42 |" in card.text

    _, output, _ = invoke(evaluate, "--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "fr", "es")
    assert "model card   models/tiny-en-fr/README.md" in output
    card = ModelCard.load(path)
    for lang, kind in (("fr", "in-language"), ("es", "zero-shot")):
        result = read_json(trained / f"outputs/tiny-en-fr/eval/{lang}.json")
        low, high = result["confidence_intervals"]["macro_f1"]
        assert f"| {lang} | {kind} | {result['num_texts']} | {result['accuracy']:.3f} [" in card.text
        assert f"| {result['macro_f1']:.3f} [{low:.3f}, {high:.3f}] |" in card.text
        found = {
            entry.metric_type: entry.metric_value for entry in card.data.eval_results if entry.dataset_config == lang
        }
        assert found == {"accuracy": round(result["accuracy"], 4), "f1": round(result["macro_f1"], 4)}


def test_a_model_that_pools_otherwise_says_how_to_load_it(inputs, invoke):
    status, _, errors = invoke(finetune, *FAST, *LONE, "--pooling", "mean")
    assert status == 0, errors
    text = ModelCard.load(inputs.folder / "models/tiny-en-fr/README.md").text
    assert "`load_classifier`" in text and "| pooling | mean |" in text
    config = read_json(inputs.folder / "models/tiny-en-fr/config.json")
    assert config["classifier_pooling"] == "mean"
    status, _, errors = invoke(finetune, *FAST, *LONE, "--num_epochs", "0", "--subfolder", "first")
    assert status == 0, errors
    text = ModelCard.load(inputs.folder / "models/first/tiny-en-fr/README.md").text
    assert "`load_classifier`" not in text and 'pipeline("text-classification", "MODEL")' in text


def test_a_card_that_was_changed_stays(trained, invoke):
    path = trained / "models/tiny-en-fr/README.md"
    path.write_text(path.read_text().replace(MARK, "My own words."))
    mine = path.read_bytes()
    _, output, _ = invoke(evaluate, "--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "fr")
    assert "model card   left as it is" in output
    assert path.read_bytes() == mine


def test_no_evaluation_is_missing_from_a_card_that_many_write(trained, invoke):
    invoke(evaluate, "--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "fr")
    layout = RunLayout("tiny", "en-fr")
    content = layout.eval_json("fr").read_text()

    def evaluated(lang):
        write_text(layout.eval_json(lang), content.replace('"eval_lang": "fr"', f'"eval_lang": "{lang}"'))
        write_classifier_card(layout, [])

    threads = [threading.Thread(target=evaluated, args=[f"l{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    langs = {entry.dataset_config for entry in ModelCard.load(layout.model / "README.md").data.eval_results}
    assert langs == {"fr", *(f"l{number}" for number in range(8))}


def test_results_do_not_depend_on_the_card(trained, invoke):
    record = read_json(trained / "outputs/tiny-en-fr/run.json")
    del record["data"]
    (trained / "outputs/tiny-en-fr/run.json").write_text(json.dumps(record))
    status, output, errors = invoke(evaluate, "--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "fr")
    assert status == 0 and "fr: 24 texts" in output
    assert "no model card: 'data' is not in outputs/tiny-en-fr/run.json" in errors


@pytest.mark.slow
def test_the_card_of_adapters(inputs, invoke):
    status, _, errors = invoke(finetune, *FAST, *LONE, "--lora_targets", "query")
    assert status == 0, errors
    card = ModelCard.load(inputs.folder / "models/tiny-en-fr/README.md")
    assert "with LoRA adapters on query" in card.text and "| lora_r | 8 |" in card.text
    assert card.data.license == "unknown"


@pytest.mark.slow
def test_the_card_of_a_language_model(here, invoke):
    arguments = ["--train_file", "train.txt.gz", "--validation_file", "dev.txt.gz", "--epochs", "1", "--seed", "3"]
    status, _, errors = invoke(finetune_lm, "--model_name_or_path", "gpt2", *arguments)
    assert status == 0, errors
    folder = only_folder(here)
    card = ModelCard.load(folder / "model/README.md")
    best = read_json(folder / "train.json")["epochs"][0]["validation_loss"]
    assert card.data.pipeline_tag == "text-generation"
    assert f"| validation loss | {best:.4f} |" in card.text
    assert "train.txt.gz" in card.text and "| seed | 3 |" in card.text


def test_labels_are_text_in_a_card_whatever_they_hold():
    assert plain("a\nb  c") == "a b c"
    for hostile in ("<script>alert(1)</script>", "| x | y", "[a](javascript:b)", "# big", "**bold**", "`code`", "&lt;"):
        written = plain(f"{hostile}\n\n# heading")
        assert "\n" not in written
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(f"{written}.")
        assert html.startswith("<p>") and "<" not in html.removeprefix("<p>").removesuffix("</p>\n"), html
