"""From class names to tokens, and whether CLIP can tell the classes apart by them."""

from __future__ import annotations

import logging
import string
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zss_d2.data.spec.naming import Tokenizer, check_length, check_names
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptSettings:
    """What class names are embedded with.

    Attributes:
        templates: sentences with one ``{}``, where the name goes; None: the name is all.
        synonyms: further names of some classes.
    """

    templates: Sequence[str] | None
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def names_of(self, class_name: str) -> tuple[str, ...]:
        """The name of a class and its synonyms."""
        return (class_name, *self.synonyms.get(class_name, ()))


@dataclass(frozen=True)
class Vocabulary(Sequence[str]):
    """Class names that say how they are to be embedded, for one call of a model.

    To whoever does not ask, it is the sequence of the names.

    Attributes:
        names: of the classes.
        synonyms: further names of some of them; the others have those that the model knows.
        templates: sentences with one ``{}``, where the name goes; None: those of the model.
    """

    names: tuple[str, ...]
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    templates: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        return self.names[index]


def vocabulary_key(class_names: Sequence[str]) -> Hashable:
    """Equal for class names that a model embeds alike."""
    if not isinstance(class_names, Vocabulary):
        return tuple(class_names)
    synonyms = tuple((name, tuple(words)) for name, words in sorted(class_names.synonyms.items()))
    templates = class_names.templates
    return class_names.names, synonyms, None if templates is None else tuple(templates)


def prompts_for(class_names: Sequence[str], own: PromptSettings) -> PromptSettings:
    """What class names are embedded with by a model whose settings are ``own``.

    Raises:
        ZssError: a `Vocabulary` has templates, and the model learned prompts in their place.
    """
    if not isinstance(class_names, Vocabulary):
        return own
    if class_names.templates is None:
        return replace(own, synonyms={**own.synonyms, **class_names.synonyms})
    if own.templates is None:
        raise ZssError(
            "this model has learned prompts in the place of sentence templates; leave templates out"
        )
    return PromptSettings(class_names.templates, {**own.synonyms, **class_names.synonyms})


class ClassTokens(NamedTuple):
    """Token ids of all sentences of all classes."""

    tokens: Tensor  # (N, context)
    owner: Tensor  # (N,), the class of each


def check_templates(templates: Sequence[str], key: str = "MODEL.CLIP.TEMPLATES") -> None:
    """Raise `ZssError` unless every sentence has one ``{}``, and no other braces.

    Args:
        key: what errors call the sentences.
    """
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
    tokenizer: Tokenizer, class_names: Sequence[str], prompts: PromptSettings
) -> ClassTokens:
    """Tokenize every name and synonym in every sentence.

    Raises:
        ZssError: bad templates; names that are empty, equal or too long for CLIP.
    """
    if prompts.templates is not None:
        check_templates(prompts.templates)
    check_names(tokenizer, class_names, prompts.synonyms)
    sentences, owner = [], []
    for index, class_name in enumerate(class_names):
        for name in prompts.names_of(class_name):
            if prompts.templates is None:
                texts = [name]
            else:
                texts = [template.format(name) for template in prompts.templates]
            sentences += texts
            owner += [index] * len(texts)
    tokens = tokenizer(sentences)
    check_length(tokenizer, sentences, tokens)
    return ClassTokens(tokens, torch.tensor(owner))
