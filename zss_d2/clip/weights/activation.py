"""QuickGELU or GELU: the activation that CLIP weights were trained with, and whether it is known.

A state dict does not say it. Under the other activation everything runs, and features are wrong.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import open_clip

from zss_d2.clip.weights.companion import Companion
from zss_d2.clip.weights.formats import OPENAI, TRANSFORMERS, Weights
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

# SHA-256 of the weights of the four ViTs of OpenAI as the hub has them in transformers' format
# (openai/clip-vit-...: the digests that the hub lists, repeated by those who pin these files).
_OPENAI_ON_HUB = {
    "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f": "base-patch32",
    "ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0": "base-patch16",
    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb": "large-patch14",
    "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801": "large-patch14-336",
}
_SUFFIX = "-quickgelu"
CHOICES = ("auto", "true", "false")


class Known(NamedTuple):
    """What is known of the activation of some weights, and from where, in words."""

    quick_gelu: bool
    source: str


def activation_of_tag(name: str, tag: str) -> Known:
    """The activation that open_clip lists for a tag."""
    listed = open_clip.get_pretrained_cfg(name, tag)
    return Known(bool(listed.get("quick_gelu")), f"open_clip's tag {tag!r}")


def activation_of_file(weights: Weights, companion: Companion | None) -> Known | None:
    """The activation of weights from a file; None where nothing tells it.

    Told by: what only OpenAI's own files contain; the configuration beside the file; the digest of
    a file of OpenAI's on the hub.
    """
    if weights.origin == OPENAI:
        return Known(True, weights.format)
    if companion:
        return Known(companion.quick_gelu, f"{companion.file} beside the weights")
    if weights.origin == TRANSFORMERS:
        model = _OPENAI_ON_HUB.get(_sha256(weights.path))
        return model and Known(True, f"the digest of openai/clip-vit-{model}")
    return None


def choose_quick_gelu(choice: str, name: str, pretrained: str, known: Known | None) -> bool:
    """Whether both towers compute with QuickGELU.

    Args:
        choice: ``MODEL.CLIP.QUICK_GELU``, "auto", "true" or "false".
        name: ``MODEL.CLIP.NAME``; one that ends in -quickgelu decides.
        pretrained: ``MODEL.CLIP.PRETRAINED``, "" for random weights.
        known: of the weights, if anything is.

    Raises:
        ZssError: no such choice; the name contradicts it, or what is known of the weights.
    """
    key = f"MODEL.CLIP.QUICK_GELU {choice}"
    if choice not in CHOICES:
        raise ZssError(f"{key} is none of {', '.join(map(repr, CHOICES))}, in quotes; use one")
    plain = name.removesuffix(_SUFFIX)
    if (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        if choice == "false" or (known and not known.quick_gelu):
            against = key if choice == "false" else f"{known.source}, which has GELU"
            raise ZssError(
                f"MODEL.CLIP.NAME {name} has QuickGELU, against {against}; set MODEL.CLIP.NAME "
                f"{plain}" + (" or MODEL.CLIP.QUICK_GELU auto" if choice == "false" else "")
            )
        return True
    if choice != "auto":
        wanted = choice == "true"
        if known and known.quick_gelu != wanted:
            logger.warning(
                "%s contradicts %s, which has %s: features are not what it was trained to give",
                *(key, known.source, _in_words(known.quick_gelu)),
            )
        return wanted
    if known:
        logger.info("CLIP %s has %s (%s)", name, _in_words(known.quick_gelu), known.source)
        return known.quick_gelu
    if pretrained and f"{name}{_SUFFIX}" in open_clip.list_models():
        logger.warning(
            "MODEL.CLIP.PRETRAINED %s does not say whether it was trained with QuickGELU, as "
            "OpenAI's and some other weights of %s are; GELU is used. Set MODEL.CLIP.QUICK_GELU to "
            "true or false",
            *(pretrained, name),
        )
    return False


def _in_words(quick_gelu: bool) -> str:
    return "QuickGELU" if quick_gelu else "GELU"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
