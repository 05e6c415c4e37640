"""From class names to tokens, and whether CLIP can tell the classes apart by them."""

from __future__ import annotations

import logging
import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

Tokenizer = Callable[[list[str]], Tensor]
NO_SYNONYMS: Mapping[str, Sequence[str]] = MappingProxyType({})
_SHOWN = 60  # characters of a name in a message


class ClassTokens(NamedTuple):
    """Token ids of all sentences of all classes."""

    tokens: Tensor  # (N, context)
    owner: Tensor  # (N,), the class of each


def check_templates(templates: Sequence[str]) -> None:
    """Raise `ZssError` unless every sentence has one ``{}``, and no other braces."""
    key = "MODEL.CLIP.TEMPLATES"
    if isinstance(templates, str) or not templates:
        raise ZssError(
            f"{key} is {templates!r}; list one sentence or more, such as 'a photo of a {{}}.'"
        )
    for template in templates:
        if _fields(template) != [("", "", None)]:
            raise ZssError(
                f"{key} has {template!r}; a sentence has one {{}}, where the class name goes, and "
                "no other braces"
            )
    doubled = [template for template in dict.fromkeys(templates) if templates.count(template) > 1]
    if doubled:
        logger.warning("%s has %r more than once, which weighs it so", key, doubled[0])


def _fields(template: object) -> list[tuple] | None:
    """(name, format, conversion) of each place for a value; None if it is no such sentence."""
    try:
        parts = list(string.Formatter().parse(template))
    except (TypeError, ValueError):
        return None
    return [tuple(field) for _, *field in parts if field[0] is not None]


def class_tokens(
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    templates: Sequence[str] | None,
    synonyms: Mapping[str, Sequence[str]] = NO_SYNONYMS,
) -> ClassTokens:
    """Tokenize every name and synonym in every sentence.

    Args:
        templates: sentences with one ``{}``; None: the name is all.
        synonyms: further names of some classes.

    Raises:
        ZssError: bad templates; names that are empty, equal or too long for CLIP.
    """
    if templates is not None:
        check_templates(templates)
    check_names(tokenizer, class_names, synonyms)
    sentences, owner = [], []
    for index, name in enumerate(class_names):
        for word in (name, *synonyms.get(name, ())):
            texts = [word] if templates is None else [text.format(word) for text in templates]
            sentences += texts
            owner += [index] * len(texts)
    tokens = tokenizer(sentences)
    _check_length(tokenizer, sentences, tokens)
    return ClassTokens(tokens, torch.tensor(owner))


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


def _check_length(tokenizer: Tokenizer, sentences: Sequence[str], tokens: Tensor) -> None:
    """Raise `ZssError` for a sentence whose end the tokenizer has cut off."""
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
