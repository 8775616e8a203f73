# PYTHON_ARGCOMPLETE_OK
"""Fine-tune a language model (masked, causal or sequence-to-sequence), or compute its surprisals.

    python finetune_lm.py --model_name_or_path gpt2 --train_file train.txt.gz --validation_file dev.txt.gz
    python finetune_lm.py --model_name_or_path gpt2 --test_file test.txt.gz
    python finetune_lm.py --model_name_or_path gpt2 --train_file train.txt.gz --validation_file dev.txt.gz --do_optimize

Results go to outputs/TRAIN_FILE/MODEL/TIME, those of the second to outputs/test_only/MODEL.
Stopped by a signal or killed, the same command goes on where it was.
"""

import dataclasses
import json
from dataclasses import asdict
from typing import Any

from utils.cli.parser import parse_options
from utils.cli.progress import progress
from utils.cli.script import run_script
from utils.cli.values import object_path, plural
from utils.data.text_files import open_text_file, told_apart
from utils.errors import UserError
from utils.evaluation.surprisal_options import check_bos, check_surprisal_options, check_test_files
from utils.models.model_card import language_model_card
from utils.models.registry import ModelSpec, find_checkpoint
from utils.runs.distributed import from_the_first, is_main_process, is_sharded, leave_process_group, num_processes
from utils.runs.files import check_writable, now, write_json, write_text
from utils.runs.layout import LmLayout
from utils.runs.resume import check_restarts, only_run, recorded
from utils.runs.stop import COMPLETE
from utils.training.lm_options import FinetuneLmOptions, check_options, read_token
from utils.training.lm_run import Run, choose_layout, fingerprint, is_complete, prepare, provenance, save, saved_folders
from utils.training.study import without_password


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(FinetuneLmOptions, __doc__)
    check_options(options)
    run = plan(options)
    layout = run.layout
    if not is_main_process():
        run.begin()
        fit_and_test(run)
        return 0
    with only_run(layout):
        if is_complete(layout, run.settings, run.data):
            print(f"{layout.test_results} is already complete; remove {layout.run_json} to compute it again")
            for line in draw(options, layout):
                print(line)
            return 0
        run.begin()
        with recorded(run.record, layout, run.points):
            check_restarts(run.record, run.points, options.max_restarts)
            run.record.write("running")
            summary = optimize(run) if options.do_optimize else fit_and_test(run)
            run.record.write("complete", ended=now())
            run.stop.phase = COMPLETE
            run.points.remove()
            print(summary)
    return 0


def plan(options: FinetuneLmOptions) -> Run:
    """Find models and texts and check all that can be wrong before anything is loaded or written."""
    check_processes(options)
    options.token = read_token(options.token)
    if options.do_optimize:
        # A study tests nothing, so that it is the same study with test files and without.
        options.test_file = None
    specs = {
        name: find_checkpoint(given or options.model_name_or_path, options.model_revision, options.model_registry)
        for name, given in (
            ("model", None),
            ("config", options.config_name),
            ("tokenizer", options.tokenizer_name),
        )
    }
    # Read to their ends before anything is begun, so that no mistake in them comes late.
    text_files = {
        split: open_text_file(path)
        for split, path in (("train", options.train_file), ("validation", options.validation_file))
        if path
    }
    test_files = told_apart([open_text_file(path, options.pairs) for path in options.test_file or []])
    check_test_files(options, test_files, options.max_test_samples)
    data = {"files": provenance([*text_files.values(), *test_files])}
    settings = {name: object_path(value) for name, value in asdict(options).items() if name not in ("token", "config")}
    settings = without_password(settings)
    if num_processes() > 1:
        # Batches of so many processes are another run's.
        settings["num_processes"] = num_processes()
    layout = from_the_first(choose_layout(options, settings, data), options.use_gpu)
    check_writable(layout.outputs)
    return Run(options, layout, specs, test_files, text_files, settings, data)


def check_processes(options: FinetuneLmOptions) -> None:
    """Refuse what several processes cannot share.

    Raises:
        UserError: for studies, tests alone and sharded models.
    """
    if num_processes() > 1:
        if options.do_optimize:
            raise UserError("--do_optimize: a trial runs in one process; --optimize_kwargs.n_jobs starts several")
        if not options.train_file:
            raise UserError("several processes train; a test alone runs in one: start it without torchrun")
        if is_sharded():
            raise UserError("language models are not sharded among processes; leave ACCELERATE_USE_FSDP out")


def fit_and_test(run: Run) -> str:
    """Fine-tune if there is something to fine-tune on, test if there is something to test; return the summary."""
    trained = run.layout.train_json.is_file()
    if trained and not is_main_process():
        return ""
    if trained:
        # Interrupted while it was tested.
        local = {name: ModelSpec(name, str(folder.resolve())) for name, folder in saved_folders(run.layout).items()}
        run.specs = local
        run.options = dataclasses.replace(run.options, model_modifier_fns=[], lora_targets=None)
    loaded = prepare(run)
    check_bos(run.options, loaded.task)
    if run.test_files:
        # Before hours of training.
        function = run.options.data_preprocessing_fn.get("test")
        is_masked = function is not None and function.__name__ != "identity"
        check_surprisal_options(run.options, is_masked, loaded.task, loaded.max_length(run.options))
    lines = []
    if run.options.train_file and not trained:
        lines.append(fit(run, loaded))
    if not is_main_process():
        return ""
    if run.test_files:
        lines.append(test(run, loaded))
    return "\n".join([*lines, f"options  {run.layout.config}\nrecord   {run.layout.run_json}"])


def fit(run: Run, loaded: Any) -> str:
    """Fine-tune and save the best weights, the losses and their curves; return the summary."""
    from utils.evaluation.surprisal import columns_of
    from utils.figures.curves import plot_loss_curves
    from utils.training.lm_history import write_epochs
    from utils.training.lm_setup import add_metrics, loss_names, make_trainer
    from utils.training.options import prepare_tracker
    from utils.training.trainer import run_trainer

    layout = run.layout
    prepare_tracker(run.options.report_to, layout.outputs)
    names = [name for split in ("train", "validation") for name in loss_names(run.options, split)]
    columns = columns_of([*run.text_files.values()], "split", "dataset_name", "epoch", "batch", "loss", *names)
    trainer = make_trainer(run.options, loaded, run.points, run.stop, record=run.record, columns=names)
    written = add_metrics(trainer, run.options.metrics_every, layout.metrics, columns)
    if is_main_process():
        print_start(run, loaded, trainer)
    run_trainer(trainer, None, run.stop)
    leave_process_group()
    if not is_main_process():
        return ""
    trainer.load_best()
    if run.options.merge_adapter:
        loaded.model = trainer.model.merge_and_unload()
    save(loaded.model, loaded.tokenizer, layout)
    history = trainer.history
    plot_loss_curves(layout.loss_curves, history.batches, history.epochs)
    if written == "epoch":
        data = {"train": trainer.train_examples.name, "validation": trainer.validation_examples.name}
        write_epochs(layout.metrics, history, data)
    files = provenance([*run.text_files.values()])
    card = language_model_card(
        "/".join(layout.outputs.parts[-3:]), run.specs["model"], run.record.content, files, history.best
    )
    write_text(layout.model / "README.md", card)
    write_json(layout.train_json, {"best_epoch": history.best["epoch"], "epochs": history.epochs})
    return (
        f"best epoch {history.best['epoch']} of {len(history.epochs)}: "
        f"validation loss {history.best['validation_loss']:.4f}\n"
        f"model    {layout.model}\n"
        + (f"metrics  {layout.metrics}\n" if written != "none" else "")
        + f"curves   {layout.loss_curves}"
    )


def print_start(run: Run, loaded: Any, trainer: Any) -> None:
    """Say what is trained, on what and where."""
    for examples in (trainer.train_examples, trainer.validation_examples):
        if examples.num_truncated:
            print(truncation_line(examples.name, examples.num_truncated, loaded.max_length(run.options)))
    processes = f" in {num_processes()} processes" if num_processes() > 1 else ""
    print(
        f"{run.layout.outputs}: {loaded.task}, {len(trainer.train_examples):,} training and "
        f"{len(trainer.validation_examples):,} validation examples, at most {run.options.epochs} epochs, "
        f"seed {run.options.seed}, {run.record.content['device']}{processes}"
    )


def test(run: Run, loaded: Any) -> str:
    """Compute the surprisals of the test files; return the summary."""
    from utils.data.lm_encoding import first_token
    from utils.evaluation.sentences import Pairs
    from utils.evaluation.surprisal import EXPANDED_CHUNK, write_test_results
    from utils.evaluation.token_table import TokenTable
    from utils.evaluation.word_boundaries import WordBoundaries
    from utils.training.lm_setup import make_examples, set_test_precision

    options, layout = run.options, run.layout
    run.stop.phase = "while testing; " + (
        "the same command goes on" if options.save_tmp_test_files else "no results yet (see --save_tmp_test_files)"
    )
    run.record.content["test_precision"] = set_test_precision(loaded, options.test_precision)
    loaded.model.eval()
    limit = options.max_test_samples
    boundaries = WordBoundaries(loaded.tokenizer) if options.word_correction else None
    pairs = Pairs()
    total = sum(min(file.num_examples, limit or file.num_examples) for file in run.test_files)
    with progress(total=total, desc="testing", unit="example") as bar:
        count, truncated = write_test_results(
            layout.test_results,
            layout.test_sentences,
            run.test_files,
            lambda file, part, first: make_examples(options, loaded, "test", file.name, part, first),
            loaded.model,
            TokenTable(loaded.tokenizer, loaded.task, boundaries=boundaries),
            options.per_device_test_batch_size,
            max_examples=limit,
            keep_parts=fingerprint(run) if options.save_tmp_test_files else None,
            chunk=EXPANDED_CHUNK if options.stride or options.pll else None,
            see=pairs.add,
            progress=bar,
        )
    lines = [truncation_line(name, number, loaded.max_length(options)) for name, number in truncated.items() if number]
    if loaded.task == "lm" and first_token(loaded.tokenizer, options.bos) is None:
        lines.append("nothing stands before the texts: their first tokens have no surprisal (--bos)")
    lines += [
        f"tested   {total:,} examples, {count:,} tokens: {layout.test_results}",
        f"sums     {layout.test_sentences}",
    ]
    if found := pairs.result():
        write_json(layout.test_pairs, found)
        lines += [pairs_line(name, result) for name, result in found.items()]
        lines.append(f"pairs    {layout.test_pairs}")
    return "\n".join([*lines, *draw(options, layout)])


def draw(options: FinetuneLmOptions, layout: LmLayout) -> list[str]:
    """Draw the figures of surprisals that are asked for, of the tables; return what to say of them."""
    if options.plot_items is None and options.plot_by is None:
        return []
    from utils.evaluation.sentences import means_by, words_of
    from utils.figures.style import save_figure
    from utils.figures.surprisals import conditions_figure, words_figure

    written = []
    formats = ["png", "pdf"]
    if options.plot_items and (words := words_of(layout.test_results, options.plot_items)):
        written += save_figure(words_figure(words), layout.test_words, formats)
    if options.plot_by and (means := means_by(layout.test_sentences, options.plot_by)):
        written += save_figure(conditions_figure(options.plot_by, means), layout.test_conditions, formats)
    return [f"figure   {path}" for path in written]


def pairs_line(name: str, result: dict[str, Any]) -> str:
    """Return what to say of a file of minimal pairs."""
    low, high = result["confidence_interval"]
    return (
        f"{name}: the better sentence is the likelier one in {result['share']:.1%} of {result['num_pairs']:,} pairs "
        f"[{low:.1%}, {high:.1%}]"
    )


def truncation_line(name: str, number: int, max_length: int) -> str:
    """Return what to say of examples that are cut."""
    return f"{name}: {plural(number, 'example')} of more than {max_length:,} tokens, cut there (column truncated)"


def optimize(run: Run) -> str:
    """Search hyperparameters; return the summary."""
    from utils.figures.study import write_results
    from utils.training import lm_params, lm_setup, study
    from utils.training.study_params import check_params

    options, layout = run.options, run.layout
    defaults = lm_params.hyperparameters(options)
    params = lm_params.full_names(options.params, defaults)
    check_params(params, defaults, options)
    settings = study.StudySettings(
        name=study.study_name(
            options,
            run.record.content["options"],
            run.record.content["data"]["files"],
            study.free_in_study(FinetuneLmOptions),
        ),
        journal=layout.outputs.parent / "study.journal",
        study_kwargs=options.study_kwargs,
        optimize_kwargs=options.optimize_kwargs,
        params=params,
        defaults=defaults,
        seed=options.seed,
        metric="validation loss",
        options=options,
    )
    run.stop.phase = "in the middle of a trial, which the same command begins anew"
    loaded: list[Any] = []

    def objective(values: dict[str, Any], report: study.Report) -> float:
        if not loaded:
            loaded.append(prepare(run))
        from transformers import set_seed

        set_seed(options.seed)
        trainer = lm_setup.make_trainer(
            lm_params.with_values(options, values),
            loaded[0],
            run.points,
            run.stop,
            on_epoch=lambda history: report(len(history.epochs), history.epochs[-1]["validation_loss"]),
            copy_model=True,
        )
        trainer.train()
        loss = trainer.history.best["validation_loss"]
        with layout.config.open("a", encoding="utf-8") as file:
            file.write(f"# tried {json.dumps(values)}: validation loss {loss}\n")
        return loss

    found = study.run_study(settings, objective)
    summary = write_results(found, settings, layout.study_results, layout.study_plots)
    return f"{summary}\noptions  {layout.config}\nrecord   {layout.run_json}"


if __name__ == "__main__":
    run_script(main)
