"""What counts as a word, in scripts with blanks between words and in those without."""

import re

# Scripts without blanks between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese): every character counts as one.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
