"""How much each token of a text adds to the logit of a label.

Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365, by captum) from the embeddings of the text, in which
all tokens but the special ones are masked, to those of the text itself. Their sum is the difference of the two logits:
where the sum is off by more than 5 %, the integral is taken in more steps. Or occlusion (Zeiler & Fergus 2014): what
the logit loses when a word is masked.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from utils.data.tokenization import encode_whole
from utils.data.windows import TextPieces, find_frame
from utils.evaluation.inference import Classifier, default_token_budget
from utils.explanation.options import Method
from utils.explanation.words import Word, word_scores, words_of
from utils.models import device as machine

# Of the difference of logits, and in logits: by how much the sum may miss it.
TOLERANCE, SMALL = 0.05, 0.01
MOST_STEPS = 512
# Texts with more windows are not explained: each takes as long as a text.
MOST_WINDOWS = 16


@dataclass
class Explanation:
    """What the words of a text add to the logit of one label.

    Attributes:
        label: number of the label.
        scores: of the words, shape [words].
        difference: of the logit to that of the masked text.
        missed: by how much the sum of all scores misses it, in logits; NaN for occlusion.
    """

    label: int
    scores: np.ndarray
    difference: float
    missed: float

    @property
    def is_complete(self) -> bool:
        """Whether the scores add up."""
        return np.isnan(self.missed) or self.missed <= tolerated(self.difference)


def tolerated(difference: float) -> float:
    """Return by how much the sum of scores may miss a difference of logits."""
    return max(TOLERANCE * abs(difference), SMALL)


@dataclass
class Text:
    """A text as a model reads it: its tokens, without special ones, and its words."""

    text: str
    tokens: np.ndarray
    words: list[Word]


class Explainer:
    """Explains what a classifier makes of texts.

    Args:
        classifier: any.
        method: see the module.
        steps: of the integral, at first.
        token_budget: tokens that are computed at a time.
    """

    def __init__(self, classifier: Classifier, method: Method, steps: int, token_budget: int | None):
        self.classifier, self.method, self.steps = classifier, method, steps
        self.budget = token_budget or default_token_budget(classifier.device)
        self.frame = classifier.frame or find_frame(classifier.tokenizer)
        tokenizer = classifier.tokenizer
        # Known to models that learned to fill it in; others have padding.
        self.mask = tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        classifier.model.requires_grad_(False)

    def read(self, texts: list[str]) -> list[Text]:
        """Tokenize texts and find their words; of a text that is cut, those that the model reads."""
        found = []
        for text, (tokens, places) in zip(texts, encode_whole(texts, self.classifier.tokenizer), strict=True):
            if self.classifier.reading.long_texts == "cut":
                room = self.classifier.max_length - self.frame.size
                tokens, places = tokens[:room], places[:room]
            found.append(Text(text, tokens, words_of(text, places)))
        return found

    def num_windows(self, text: Text) -> int:
        """Return how many pieces of a text the model reads."""
        return len(self._pieces(text).spans)

    def logits(self, tokens: list[np.ndarray]) -> np.ndarray:
        """Return the logits of texts, given as their tokens without special ones, shape [texts, labels]."""
        return self.classifier.logits_of_whole(tokens, self.budget)[0]

    def explain(self, text: Text, label: int) -> Explanation:
        """Explain the logit of a label."""
        if self.method == "occlusion":
            return self._occlude(text, label)
        pieces = self._pieces(text)
        rows = list(range(len(pieces.spans)))
        if self.classifier.reading.pooling == "max" and len(rows) > 1:
            # The logit is that of one window.
            rows = [int(self.classifier.logits_of([pieces.piece(row) for row in rows], self.budget)[:, label].argmax())]
        scores = np.zeros(len(text.tokens))
        difference = total = 0.0
        for row in rows:
            found, change = self._integrate(pieces.piece(row), label)
            inner = found[len(self.frame.before) : len(found) - len(self.frame.behind)]
            read = np.concatenate([np.arange(*span) for span in pieces.spans[row]])
            np.add.at(scores, read, inner / len(rows))
            difference += change / len(rows)
            total += float(found.sum()) / len(rows)
        return Explanation(label, word_scores(text.words, scores), difference, abs(total - difference))

    def _pieces(self, text: Text) -> TextPieces:
        numbers = np.array([len(text.tokens)])
        reading, length = self.classifier.reading, self.classifier.max_length
        return TextPieces(numbers, lambda _: text.tokens, self.frame, length, reading)

    def _integrate(self, input_ids: np.ndarray, label: int) -> tuple[np.ndarray, float]:
        """Return the score of each token of a piece, special ones included, and the difference of its logits."""
        from captum.attr import IntegratedGradients

        classifier = self.classifier
        embed = classifier.model.get_input_embeddings()
        ids = torch.tensor(input_ids[None].astype(np.int64), device=classifier.device)
        masked = ids.clone()
        masked[:, len(self.frame.before) : ids.shape[1] - len(self.frame.behind)] = self.mask
        with torch.no_grad():
            own, empty = embed(ids).detach(), embed(masked).detach()

        def logit(embeddings: torch.Tensor) -> torch.Tensor:
            replaced = embed.register_forward_hook(lambda *_: embeddings)
            try:
                many = ids.expand(len(embeddings), -1)
                with machine.autocast(classifier.device, classifier.precision):
                    logits = classifier.model(input_ids=many, attention_mask=torch.ones_like(many)).logits
                return logits[:, label].float()
            finally:
                replaced.remove()

        method: Any = IntegratedGradients(logit)
        with torch.no_grad():
            difference = float(logit(own) - logit(empty))
        steps = self.steps
        while True:
            found = method.attribute(
                own, baselines=empty, n_steps=steps, internal_batch_size=max(1, self.budget // ids.shape[1])
            )
            scores = found.float().sum(dim=-1)[0].cpu().numpy().astype(np.float64)
            if abs(scores.sum() - difference) <= tolerated(difference) or steps >= MOST_STEPS:
                return scores, difference
            steps *= 2

    def _occlude(self, text: Text, label: int) -> Explanation:
        variants = [text.tokens]
        for word in text.words:
            masked = text.tokens.copy()
            masked[list(word.tokens)] = self.mask
            variants.append(masked)
        variants.append(np.full_like(text.tokens, self.mask))
        logits = self.logits(variants)[:, label].astype(np.float64)
        return Explanation(label, logits[0] - logits[1:-1], float(logits[0] - logits[-1]), float("nan"))
