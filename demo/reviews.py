"""Writes demo/sentiment: short reviews in Russian and Polish, each negative, neutral or positive.

    python -m demo.reviews demo/sentiment
    python -m utils.data.transcribe --task sentiment --langs russian polish

made the files in the repository. The sentences are composed of the words below; the texts that are trained on
and those that are evaluated on have no sentence in common.
"""

import csv
import itertools
import random
import sys
from pathlib import Path

LABELS = ("negative", "neutral", "positive")
SIZES = {"train": 40, "test": 20}
# Masculine nouns, so that every adjective agrees.
WORDS = {
    "russian": {
        "things": ["фильм", "спектакль", "роман", "концерт", "сериал", "альбом", "рассказ", "журнал"],
        "frames": ["Этот {thing} {word}.", "Мне попался {word} {thing}.", "По-моему, это {word} {thing}."],
        "negative": ["скучный", "ужасный", "плохой", "неудачный", "отвратительный", "глупый"],
        "neutral": ["обычный", "средний", "знакомый", "старый", "короткий", "длинный"],
        "positive": ["замечательный", "прекрасный", "интересный", "удивительный", "превосходный", "великолепный"],
        "endings": {
            "negative": ["Жаль потраченного времени.", "Больше не пойду."],
            "neutral": ["Ничего особенного.", "Можно и без него."],
            "positive": ["Советую всем.", "Мы очень довольны."],
        },
    },
    "polish": {
        "things": ["film", "spektakl", "koncert", "serial", "album", "obraz", "hotel", "wieczór"],
        "frames": ["Ten {thing} jest {word}.", "Trafił mi się {word} {thing}.", "Moim zdaniem to {word} {thing}."],
        "negative": ["nudny", "okropny", "zły", "nieudany", "fatalny", "głupi"],
        "neutral": ["zwykły", "przeciętny", "znany", "stary", "krótki", "długi"],
        "positive": ["wspaniały", "piękny", "ciekawy", "znakomity", "świetny", "cudowny"],
        "endings": {
            "negative": ["Szkoda czasu.", "Więcej nie pójdę."],
            "neutral": ["Nic szczególnego.", "Można go pominąć."],
            "positive": ["Polecam wszystkim.", "Jesteśmy bardzo zadowoleni."],
        },
    },
}  # fmt: skip


def write_reviews(folder: Path) -> None:
    """Write LANG/train.tsv and LANG/test.tsv, with the columns review and rating."""
    for lang, words in WORDS.items():
        reviews: dict[str, list[tuple[str, str]]] = {split: [] for split in SIZES}
        for label in LABELS:
            ways = itertools.product(words["frames"], words["things"], words[label], words["endings"][label])
            texts = [f"{frame.format(thing=thing, word=word)} {ending}" for frame, thing, word, ending in ways]
            random.Random(f"{lang} {label}").shuffle(texts)
            for split, size in SIZES.items():
                reviews[split] += [(text, label) for text in texts[:size]]
                texts = texts[size:]
        for split, rows in reviews.items():
            random.Random(lang).shuffle(rows)
            path = folder / lang / f"{split}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("review", "rating"), *rows])


if __name__ == "__main__":
    write_reviews(Path(sys.argv[1]))
