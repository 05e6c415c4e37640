"""Whether CLIP can tell classes apart by their names, which a tokenizer alone says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import open_clip
import torch
from torch import Tensor

from zss_d2.errors import ZssError

Tokenizer = Callable[[list[str]], Tensor]
NO_SYNONYMS: Mapping[str, Sequence[str]] = MappingProxyType({})
_SHOWN = 60  # characters of a name in a message


def clip_tokenizer(name: str) -> Tokenizer | None:
    """Return the tokenizer of a CLIP that open_clip knows; None if that has to be downloaded."""
    config = open_clip.get_model_config(name)
    if config is None or "hf_tokenizer_name" in config.get("text_cfg", {}):
        return None
    return open_clip.get_tokenizer(name)


def check_names(
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    synonyms: Mapping[str, Sequence[str]] = NO_SYNONYMS,
) -> None:
    """Raise `ZssError` if two names, or a name and nothing, are the same tokens to CLIP.

    Their embeddings would be the same: one class would never be predicted, and an unseen class
    would be trained under the name of a seen one.
    """
    if not class_names:
        raise ZssError("there are no class names to embed; give one or more")
    words = [(name, word) for name in class_names for word in (name, *synonyms.get(name, ()))]
    nothing, *rows = tokenizer(["", *(word for _, word in words)]).tolist()
    first: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows):
        if row == nothing:
            raise ZssError(f"{_call(*words[index])} is empty to CLIP; give it a name")
        other = first.setdefault(tuple(row), index)
        if other != index:
            is_name = [name == word for name, word in (words[other], words[index])]
            remedy = (
                "rename one, or make them one class"
                if all(is_name)
                else "remove the synonym, or set MODEL.CLIP.SYNONYMS False"
            )
            raise ZssError(
                f"{_call(*words[other])} and {_call(*words[index])} are the same tokens to CLIP, "
                f"which cannot tell them apart; {remedy}"
            )


def check_length(tokenizer: Tokenizer, sentences: Sequence[str], tokens: Tensor) -> None:
    """Raise `ZssError` for a sentence whose end the tokenizer has cut off.

    Args:
        tokens: what the tokenizer made of the sentences, (N, context).
    """
    context = tokens.shape[1]
    padding = tokenizer([""])[0, -1]
    for index in (tokens[:, -1] != padding).nonzero().flatten().tolist():
        whole = tokenizer([sentences[index]], context_length=2 * context)
        if not torch.equal(whole[0, :context], tokens[index]):
            raise ZssError(
                f"the text {_shorten(sentences[index])!r} is longer than the {context} tokens that "
                "CLIP reads; shorten the class name, or its sentence in MODEL.CLIP.TEMPLATES"
            )


def _call(name: str, word: str) -> str:
    shown = f"class {_shorten(name)!r}"
    return shown if word == name else f"synonym {_shorten(word)!r} of {shown}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
