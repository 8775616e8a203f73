# PYTHON_ARGCOMPLETE_OK
"""Add phonemes to the datasets of a task: for every column FEATURE of its texts a column FEATURE-phoneme.

    python -m utils.data.transcribe --task sentiment --langs russian polish
    python -m utils.data.transcribe --task sentiment --langs english --voices.english en-us --output_dir data/ipa

The transcription is in the International Phonetic Alphabet, with stress marks and the text's punctuation, by
espeak-ng (https://github.com/espeak-ng/espeak-ng) through phonemizer (Bernard and Titeux 2021, Journal of Open
Source Software 6(68), 3958). Words that a white space separates in the text are never run together.

Local CSV, TSV, JSON lines and Parquet files are rewritten with the new columns; --output_dir leaves them as they are.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from utils.cli.options import DATA, CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.progress import progress
from utils.cli.script import run_script
from utils.data.dataset_files import load_split
from utils.data.delimited import DELIMITERS, write_table
from utils.data.language_database import PHONEMES, DatabaseOptions, Entry, open_task
from utils.errors import UserError
from utils.runs.files import atomic_path, check_writable

if TYPE_CHECKING:
    import datasets

BATCH = 500


@dataclass(kw_only=True)
class TranscribeOptions(DatabaseOptions, CommonOptions):
    """The options of ``python -m utils.data.transcribe``."""

    GROUP: ClassVar[str] = DATA

    task: str = option(help="task of the language database")
    langs: list[str] | None = option(None, "languages; without it all that have the task", metavar="LANG")
    dataset: list[str] | None = option(None, "datasets of the task, for languages that have several", metavar="NAME")
    voices: dict = option({}, "voices of espeak-ng where the language's name does not tell: --voices.english en-us")
    output_dir: str | None = option(  # type: ignore[assignment]
        None, "write Parquet files to a folder per language here; needed for saved datasets and those of the hub",
        metavar="DIR", shared=False,
    )  # fmt: skip
    force: bool = option(False, "transcribe again what has phonemes already")


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(TranscribeOptions, __doc__)
    task = open_task(options.task, options.langs, names=options.dataset, path=options.language_database)
    for lang in options.voices:
        if lang not in task.entries:
            raise UserError(f"--voices.{lang}: not one of the languages, {', '.join(task.entries)}")
    # All that can be wrong is found before the first text is transcribed.
    voices = {lang: find_voice(lang, options.voices.get(lang)) for lang in task.entries}
    targets = {lang: output_files(options, lang, entry) for lang, entry in task.entries.items()}
    check_writable(*{path.parent for files in targets.values() for path in files.values()})
    for lang, entry in task.entries.items():
        transcriber = Transcriber(voices[lang])
        for split, path in targets[lang].items():
            print(transcribe_split(entry, lang, split, path, transcriber, options.force), flush=True)
        if options.output_dir:
            print(f'{lang}: in the database, "dataset": "{next(iter(targets[lang].values())).parent.resolve()}"')
    return 0


def output_files(options: TranscribeOptions, lang: str, entry: Entry) -> dict[str, Path]:
    """Return the file to write for each split."""
    if options.output_dir:
        folder = Path(options.output_dir) / f"{lang}-{options.task}-{entry.name}"
        return {split: folder / f"{split}.parquet" for split in entry.splits}
    if not entry.source.is_local or entry.source.is_saved:
        raise UserError(f"{entry.where}: {entry.source.name} is not a file that can be rewritten; give --output_dir")
    return {split: entry.source.file(split) for split in entry.splits}


def transcribe_split(entry: Entry, lang: str, split: str, path: Path, transcriber: "Transcriber", force: bool) -> str:
    """Add the columns to one split and write it to `path`; returns a line for the user."""
    dataset = load_split(entry.source, split)
    features = [name for name in entry.train_features if force or name + PHONEMES not in dataset.column_names]
    for feature in features:
        if feature not in dataset.column_names:
            raise UserError(f"{entry.where}: split {split} has no column {feature!r}")
        texts = dataset[feature][:]
        wrong = next((row for row, text in enumerate(texts, 1) if not isinstance(text, str)), None)
        if wrong:
            raise UserError(f"{entry.where}: split {split}, row {wrong}: expected a text in {feature!r}")
        if feature + PHONEMES in dataset.column_names:
            dataset = dataset.remove_columns(feature + PHONEMES)
        dataset = dataset.add_column(feature + PHONEMES, list(transcriber(texts, f"{lang}, {split}: {feature}")))
    if not features and path.is_file():
        return f"{lang}: {path} has phonemes already (--force makes them again)"
    write_file(dataset, path)
    return f"{lang}: {path}, {len(dataset):,} texts by the voice {transcriber.voice}"


def write_file(dataset: "datasets.Dataset", path: Path) -> None:
    """Write a dataset as CSV, TSV, JSON lines or Parquet, as the file's name says, atomically."""
    if path.suffix in DELIMITERS:
        write_table(path, dataset, dataset.column_names)
        return
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            dataset.to_parquet(temporary)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in dataset)


def find_voice(lang: str, given: str | None = None) -> str:
    """Return espeak-ng's code of a language: ``ru`` for russian.

    Args:
        lang: name as in the database (``russian``, ``spanish_latin_america``), or already such a code.
        given: the code, if the user gave it.

    Raises:
        UserError: if there is no such language, several voices have its name, or espeak-ng is not installed.
    """
    known = _supported()
    if given is not None or lang in known:
        if (given or lang) not in known:
            raise UserError(f"--voices.{lang}: espeak-ng has no voice {given!r}; espeak-ng --voices lists them")
        return given or lang
    names = {code: re.sub(r"\W+", "_", name.lower()).strip("_") for code, name in known.items()}
    wanted = lang.lower()
    found = [code for code, name in names.items() if name == wanted]
    found = found or [code for code, name in names.items() if name.startswith(f"{wanted}_")]
    if len(found) != 1:
        choice = f"several voices: {', '.join(found)}" if found else "no voice of that name (espeak-ng --voices)"
        raise UserError(f"language {lang!r}: espeak-ng has {choice}; choose with --voices.{lang} CODE")
    return found[0]


def _supported() -> dict[str, str]:
    try:
        from phonemizer.backend import EspeakBackend
    except ImportError:
        raise UserError("phonemizer is not installed: pip install 'register-finetuning[transcribe]'") from None
    if not EspeakBackend.is_available():
        raise UserError("espeak-ng is not installed: apt-get install espeak-ng, or ask the cluster's staff for it")
    return EspeakBackend.supported_languages()


class Transcriber:
    """Texts in one language as phonemes.

    Args:
        voice: espeak-ng's code of the language.
    """

    def __init__(self, voice: str):
        import logging

        from phonemizer.backend import EspeakBackend
        from phonemizer.separator import Separator

        self.voice = voice
        # What it warns of, words run together, is mended below.
        logger = logging.getLogger("phonemizer.quiet")
        logger.setLevel(logging.ERROR)
        self.backend = EspeakBackend(
            voice,
            preserve_punctuation=True,
            with_stress=True,
            language_switch="remove-flags",
            words_mismatch="ignore",
            logger=logger,
        )
        self.separator = Separator(phone="", word=" ")

    def __call__(self, texts: list[str], description: str = "") -> Iterator[str]:
        """Yield the transcription of every text, in their order; white space in them becomes single spaces.

        Args:
            texts: any texts; empty ones stay empty.
            description: shown beside the progress bar.
        """
        with progress(total=len(texts), desc=description, unit="text") as bar:
            for start in range(0, len(texts), BATCH):
                batch = [text.split() for text in texts[start : start + BATCH]]
                yield from self._transcribe(batch)
                bar.update(len(batch))

    def _transcribe(self, batch: list[list[str]]) -> list[str]:
        results = self._phonemize([" ".join(words) for words in batch])
        # espeak-ng reads some short words as one with the next ("in the"), and a number as several words,
        # which can hide the former. Such texts are read word by word.
        doubtful = [
            number
            for number, words in enumerate(batch)
            if any(map(_has_digit, words)) or num_words(words) != num_words(results[number].split())
        ]
        vocabulary = list(dict.fromkeys(word for number in doubtful for word in batch[number]))
        spoken = dict(zip(vocabulary, self._phonemize(vocabulary), strict=True))
        for number in doubtful:
            results[number] = " ".join(filter(None, (spoken[word] for word in batch[number])))
        return results

    def _phonemize(self, texts: list[str]) -> list[str]:
        # What holds no word has no phonemes, and phonemizer may drop it.
        spoken = [number for number, text in enumerate(texts) if _is_word(text)]
        results = list(texts)
        phonemes = self.backend.phonemize([texts[number] for number in spoken], self.separator, strip=True)
        for number, phones in zip(spoken, phonemes, strict=True):
            results[number] = " ".join(phones.split())
        return results


def _is_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def num_words(parts: list[str]) -> int:
    """Count what is not punctuation alone."""
    return sum(map(_is_word, parts))


def _has_digit(text: str) -> bool:
    return any(character.isnumeric() for character in text)


if __name__ == "__main__":
    run_script(main)
