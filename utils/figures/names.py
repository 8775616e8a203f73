"""What figures and reports call languages and registers: the names of a corpus's info files, else the codes."""

from dataclasses import dataclass, field
from pathlib import Path

from utils.data.corpus_load import DEFAULT_CORPUS, open_corpus


@dataclass(frozen=True)
class Names:
    """Names by abbreviation; what has none is called by its abbreviation."""

    languages: dict[str, str] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)

    def lang(self, lang: str) -> str:
        """Return a language's name, ``French`` for fr."""
        if lang not in self.languages:
            return lang
        return "/".join(name[:1].upper() + name[1:] for name in self.languages[lang].split("/"))

    def langs(self, train_langs: str) -> str:
        """Return the names of training languages, ``English + French`` for en-fr; codes where one has no name."""
        langs = train_langs.split("-")
        return " + ".join(map(self.lang, langs)) if all(lang in self.languages for lang in langs) else train_langs

    def legend(self, registers: list[str]) -> str:
        """Return what the registers' abbreviations stand for; empty where there is nothing to say."""
        known = [x for x in registers if self.registers.get(x, x) != x]
        # No-break spaces keep an abbreviation and the first word of its name on one line.
        return "; ".join(f"{x}\u00a0{self.registers[x]}" for x in known)


NO_NAMES = Names()


def load_names(corpus_path: str) -> Names:
    """Read the names of a corpus; none if the corpus is where it usually is and not there.

    Raises:
        UserError: if another folder was given and is no register corpus.
    """
    if corpus_path == DEFAULT_CORPUS and not Path(corpus_path).is_dir():
        return Names()
    corpus = open_corpus(corpus_path)
    return Names(corpus.language_names, corpus.scheme.names)
