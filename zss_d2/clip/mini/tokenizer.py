"""CLIP's tokenizer, restricted to the words of the mini world."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from zss_d2.data.synthetic.mini.vocabulary import COLOURS, PATTERNS, STUFF
from zss_d2.errors import ZssError

CONTEXT_LENGTH = 32
_FILLERS = "a an the this that is are there of in on and with photo picture image scene thing , ."
WORDS = tuple(sorted({*_FILLERS.split(), *COLOURS, *PATTERNS, *STUFF}))


class ClosedVocabularyTokenizer:
    """Maps captions to small ids: those of CLIP's own tokenizer, renumbered in the same order.

    The order is kept, so end-of-text stays the largest id, by which open_clip finds it; 0 pads.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH):
        self.context_length = context_length
        tokenizer = SimpleTokenizer()
        pieces = {word: tokenizer.encode(word) for word in WORDS}
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        known = sorted({start, end, *(i for ids in pieces.values() for i in ids)})
        renumbered = {old: new for new, old in enumerate(known, start=1)}
        self.vocab_size = len(known) + 1
        self.sot_token_id, self.eot_token_id = renumbered[start], renumbered[end]
        self._pieces = {word: [renumbered[i] for i in ids] for word, ids in pieces.items()}

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenize texts -> (N, context_length) int64.

        Raises:
            ZssError: a word is not in WORDS, or a text is longer than the context.
        """
        texts = [texts] if isinstance(texts, str) else texts
        length = context_length or self.context_length
        tokens = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = self.encode(text)
            if len(ids) > length:
                raise ZssError(
                    f"text {text!r} has {len(ids)} tokens, the mini CLIP reads {length}; shorten it"
                )
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text between start-of-text and end-of-text."""
        ids = [self.sot_token_id]
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            if word not in self._pieces:
                raise ZssError(
                    f"the mini CLIP does not know the word {word!r} of {text!r}; it knows: "
                    f"{' '.join(WORDS)}"
                )
            ids += self._pieces[word]
        return [*ids, self.eot_token_id]
