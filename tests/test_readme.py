"""Commands of the README and of docs/ are accepted by their scripts, files exist, both languages say the same."""

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import finetune
from benchmarks.finetune_throughput import BenchmarkOptions
from tests.factories import ENGLISH, PAGES, PROJECT, commands_of
from utils.cli.parser import OptionParser
from utils.errors import UserError
from utils.jobs.experiments import JobOptions
from utils.jobs.options import OPTIONS as COMBINATION_OPTIONS
from utils.jobs.options import parse_combination_options

# Pages in both languages, without their endings.
TRANSLATED = tuple(
    str(path.relative_to(PROJECT)).removesuffix(".fr.md") for path in PAGES if path.name.endswith(".fr.md")
)
# The page of options and these tests go over the same scripts.
spec = importlib.util.spec_from_file_location("generate", PROJECT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
OPTIONS = {script: generate.options_of(path) for script, path in generate.SCRIPTS.items()}
COMMANDS = commands_of(r"(python|torchrun|accelerate) ")


def accept(script, arguments):
    """Parse a command line as its script does."""
    options = OPTIONS[script]
    OptionParser(options, passes_on=finetune.FinetuneOptions if issubclass(options, JobOptions) else None).parse(
        arguments
    )


def path_of(script):
    return PROJECT / (script if script.endswith(".py") else f"{script.replace('.', '/')}.py")


def test_there_are_commands_of_every_script():
    assert {script for command in COMMANDS for script in OPTIONS if script in command} == set(OPTIONS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"printf '(.*)' > recipe.yaml", ENGLISH)
    Path("recipe.yaml").write_text(recipe.replace("\\n", "\n"), encoding="utf-8")
    Path("config").symlink_to(PROJECT / "config")
    words = shlex.split(command)
    script = next((word for word in words if word in OPTIONS), None)
    if script is None:
        # Benchmarks have tests of their own, and the demo's modules run in every other.
        (name,) = (word for word in words if word.startswith(("benchmarks/", "demo.")))
        assert path_of(name).is_file()
        return
    accept(script, words[words.index(script) + 1 :])


@pytest.mark.parametrize("script", [*OPTIONS, "benchmarks/finetune_throughput.py"])
def test_scripts_open_with_commands_that_they_accept(script):
    text = path_of(script).read_text(encoding="utf-8")
    docstring = text.split('"""')[1]
    commands = re.findall(rf"^    .*{re.escape(script)}(.*)$", docstring, re.MULTILINE)
    assert commands
    for arguments in commands:
        if script in OPTIONS:
            accept(script, shlex.split(arguments, comments=True))


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(PROJECT)) for path in PAGES])
def test_links_and_figures_exist(page):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.is_file(), target
        assert not heading or heading in headings(there.read_text(encoding="utf-8")), target


def headings(text):
    """A page's headings as GitHub names them in links."""
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).strip().replace(" ", "-") for line in text.splitlines()}


def sections(text):
    """Cut at the headings: their levels, and what is below each."""
    parts = re.split(r"(?m)^(#+) .*$", text)
    return list(zip(map(len, parts[1::2]), parts[2::2], strict=True))


def untranslated(link):
    """The same for a page and its translation, whose headings are others."""
    page = link.partition("#")[0].removesuffix(".md").removesuffix(".fr")
    return page if Path(page).name in {Path(name).name for name in TRANSLATED} else link


def numbers(text):
    """All numbers, written alike: .5 is 0,5 in French, and 50,000 is 50 000."""
    text = re.sub(r"(?<![\w.,])0[.,](?=\d)", ".", text)
    text = re.sub(r"(?<=\d)[ ,](?=\d{3}\b)", "", text).replace(",", ".")
    return [number.rstrip(".") for number in re.findall(r"(?<![\w.])\.?\d[\d.]*(?!\w)", text)]


def signature(section):
    """What a translation leaves as it is: commands, code, tables' sizes, links and figures."""
    code = [line for line in section.splitlines() if line.startswith("    ")]
    # Comments and explanations beside file names are translated.
    code = [re.sub(r"( {2,}|\s*(//|#) ).*$", "", line.strip()) for line in code]
    spans = re.findall(r"`[^`]+`", "\n".join(line for line in section.splitlines() if not line.startswith("    ")))
    return {
        "code": [re.sub(r"<tab>.*|:.*the labels.*|:.*les étiquettes.*", "", line).strip() for line in code],
        "spans": sorted({" ".join(span.split()) for span in spans}),
        "rows of tables": len(re.findall(r"(?m)^\|", section)),
        "items": len(re.findall(r"(?m)^- ", section)),
        "links": [untranslated(link) for link in re.findall(r"\]\((http[^)]+|[^#][^)]*)\)", section)],
        "links within": len(re.findall(r"\]\(#", section)),
        "numbers": sorted(numbers(section)),
    }


@pytest.mark.parametrize("page", TRANSLATED)
def test_both_languages_say_the_same(page):
    english, french = ((PROJECT / f"{page}{end}").read_text(encoding="utf-8") for end in (".md", ".fr.md"))
    assert [level for level, _ in sections(english)] == [level for level, _ in sections(french)]
    for number, ((_, text), (_, texte)) in enumerate(zip(sections(english), sections(french), strict=True)):
        ours, theirs = signature(text), signature(texte)
        for what in ours:
            assert ours[what] == theirs[what], (number, what)


# Not ours: options of sbatch, squeue, accelerate and torchrun; and of a benchmark.
OTHERS_OPTIONS = {
    "--time",
    "--partition",
    "--mail-type",
    "--gres",
    "--nodes",
    "--signal",
    "--array",
    "--wrap",
    "--constraint",
}
OTHERS_OPTIONS |= {"--config_file", "--num_processes", "--me", "--start", "--standalone", "--texts"}
# Of xcode-select, apptainer, docker, conda, argcomplete.
OTHERS_OPTIONS |= {"--install", "--nv", "--bind", "--tag", "--file", "--rm", "--gpus", "--volume", "--workdir"}
OTHERS_OPTIONS |= {"--build-arg", "--user"}


def submit_options():
    """The options of the submit scripts."""
    return {f"--{field.name}" for options_class in COMBINATION_OPTIONS.values() for field in fields(options_class)}


def test_every_option_that_is_named_exists():
    known = {f"--{field.name}" for options in OPTIONS.values() for field in fields(options)}
    known |= {"--help", "--debug", "--option_name", "--option-name", "--base_dir", "--nproc-per-node"}
    known |= {f"--{field.name}" for field in fields(BenchmarkOptions)}
    known |= submit_options() | OTHERS_OPTIONS
    named = {name.split(".")[0] for name in re.findall(r"--[a-z][a-z0-9_.-]+", ENGLISH)}
    assert named <= known, named - known


def test_messages_of_the_troubleshooting_are_those_of_the_scripts():
    """Every error that the table explains is written somewhere, fields in braces aside."""
    table = (PROJECT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [cell.strip() for line in table.splitlines() for cell in re.findall(r"^\| `([^`]+)`", line)]
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in [*PROJECT.glob("utils/**/*.py"), *PROJECT.glob("*.py")]
    )
    sources = re.sub(r"\{[^{}]*\}", "{}", sources)
    # What PyTorch itself says.
    ours = [message for message in quoted if message != "CUDA out of memory"]
    assert len(ours) >= 6
    for message in ours:
        words = [re.escape(word) if word not in ("train", "nan") else rf"(?:{word}|\{{\}})" for word in message.split()]
        assert re.search(r"\s+".join(words), sources), message


@pytest.mark.parametrize("command", commands_of(r"\./submit_(?!lm)"))
def test_commands_of_the_submit_scripts_are_accepted(command):
    script, *arguments = shlex.split(command)
    kind = script.removeprefix("./submit_").partition("_")[0]
    own = arguments[: arguments.index("--") if "--" in arguments else None]
    parse_combination_options(kind, own, {}, script, "")
    with pytest.raises(UserError, match="unknown option --modles; did you mean '--models'"):
        parse_combination_options(kind, [*own, "--modles", "x"], {}, script, "")


def test_targets_of_make_exist():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8")))
    named = set(re.findall(r"`make ([a-z-]+)[`\s]", ENGLISH))
    commands = {line.split("make ")[1].split()[0] for line in commands_of(r"(\w+=\S+ )*make ")}
    assert commands | named <= targets and {"demo", "test", "bench", "agnews", "docs"} <= commands | named


def test_the_readme_is_short():
    for name in ("README.md", "README.fr.md"):
        assert (PROJECT / name).stat().st_size < 8000, name


def test_every_page_is_in_both_languages_and_in_the_navigation():
    pages = {str(path.relative_to(PROJECT / "docs")) for path in PAGES[2:]}
    english = {page for page in pages if not page.endswith(".fr.md")}
    assert pages == english | {page.replace(".md", ".fr.md") for page in english}
    navigation = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == english | {"changelog.md"}


def test_the_page_of_options_is_up_to_date():
    check = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=PROJECT, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
