# PYTHON_ARGCOMPLETE_OK
"""Fetch the registry's pretrained models into the local cache, for compute nodes without internet.

    python download_model.py                        # every model of model2chckpt.json
    python download_model.py --models xlmr mbert
    python download_model.py --check                # offline: what is there and complete

Fetches configuration, tokenizer and the weights in one format (safetensors if there are any) at the
registry's revision. An interrupted download goes on where it was. The cache is that of huggingface_hub:
$HF_HOME moves it, $HF_TOKEN opens gated models.
"""

from dataclasses import dataclass
from typing import ClassVar

from utils.cli.options import MODEL, CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.errors import RunFailure, UserError, nearest
from utils.models.registry import (
    ModelSpec,
    RegistryOptions,
    cached_folder,
    checkpoint_problem,
    download,
    load_registry,
    model_problem,
    registry_path,
)


@dataclass(kw_only=True)
class DownloadOptions(RegistryOptions, CommonOptions):
    """The options of download_model.py."""

    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "what to fetch"}

    models: list[str] | None = option(
        None, "abbreviations of the models; without it all of the registry", group=MODEL, metavar="MODEL"
    )
    check: bool = option(False, "only say what is present and complete, without network", group=MODEL)


def main() -> int:
    """Run the script; returns 1 if a model is missing or could not be fetched."""
    options = parse_options(DownloadOptions, __doc__)
    registry = load_registry(options.model_registry)
    for name in options.models or []:
        if name not in registry:
            raise UserError(
                f"model {name!r} is not in {registry_path(options.model_registry)}{nearest(name, registry)}"
            )
    specs = [registry[name] for name in dict.fromkeys(options.models or registry)]
    lines = [check(spec) if options.check else fetch(spec) for spec in specs]
    width = max(len(spec.name) for spec in specs)
    for spec, (_, line) in zip(specs, lines, strict=True):
        print(f"{spec.name:{width}}  {line}")
    return 0 if all(complete for complete, _ in lines) else 1


def check(spec: ModelSpec) -> tuple[bool, str]:
    """Return, without network, whether a model is complete, and where it is or what it lacks."""
    folder = cached_folder(spec)
    problem = model_problem(spec, folder)
    if problem is None:
        return True, f"complete: {folder}"
    return False, f"{spec.checkpoint}: {problem}"


def fetch(spec: ModelSpec) -> tuple[bool, str]:
    """Fetch a model unless it is a local folder, then check that it is complete."""
    if spec.is_local:
        return check(spec)
    print(f"fetching {spec.name} ({spec.checkpoint}{' at ' + spec.revision if spec.revision else ''})", flush=True)
    try:
        folder = download(spec)
    except RunFailure as failure:
        return False, str(failure)
    problem = checkpoint_problem(folder)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return problem is None, f"{problem or 'complete'}: {folder} ({size / 1e6:.0f} MB)"


if __name__ == "__main__":
    run_script(main)
