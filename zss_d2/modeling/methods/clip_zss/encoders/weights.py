"""Weights that a student starts from: a local file, matched tensor by tensor to the model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from safetensors.torch import load_file
from torch import Tensor, nn

from zss_d2.clip.weights_file import lookalike
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

KEY = "MODEL.CLIP_ZSS.ENCODER.WEIGHTS"

# Where training code puts the weights within a file.
_WRAPPERS = ("state_dict", "model")
# What it puts in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
# What classifies or segments behind an encoder, by the first part of a name; never needed here.
_HEADS = frozenset(
    ("fc", "_fc", "head", "head_dist", "classifier", "linear", "last_linear")
    + ("segmentation_head", "classification_head", "decode_head", "auxiliary_head")
)
# Counted by torch itself where a file has none.
_COUNTER = "num_batches_tracked"


def start_of(cfg: CfgNode) -> tuple[bool, str]:
    """What the student's backbone starts from.

    Returns:
        whether to load the weights that its library has for it, and a file of weights, or "".

    Raises:
        ZssError: ``PRETRAINED`` and ``WEIGHTS`` are both set.
    """
    encoder = cfg.MODEL.CLIP_ZSS.ENCODER
    if encoder.PRETRAINED and encoder.WEIGHTS:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.PRETRAINED is True and WEIGHTS is {encoder.WEIGHTS!r}; the "
            "student can start from one of them: set PRETRAINED False or WEIGHTS ''"
        )
    if (encoder.PRETRAINED or encoder.WEIGHTS) and not cfg.MODEL.CLIP_ZSS.TEACHER:
        logger.info(
            "MODEL.CLIP_ZSS.ENCODER.PRETRAINED and WEIGHTS are for training: with TEACHER False "
            "the student's weights are those of the checkpoint"
        )
        return False, ""
    return encoder.PRETRAINED, encoder.WEIGHTS


def read_weights(path: str) -> dict[str, Tensor]:
    """Tensors by name from a file of safetensors or ``torch.save``; no code in it is run.

    Raises:
        ZssError: it is missing, unreadable, or holds no tensors by name.
    """
    shown = _shown(path)
    if not Path(path).is_file():
        raise ZssError(f"{KEY} {shown} is no file; give a file of weights, or ''")
    try:
        content = _content(path)
    except Exception:  # the readers let any error through where bytes make no sense
        if what := lookalike(Path(path)):
            raise ZssError(f"{KEY} {shown}: no weights but {what}") from None
        raise ZssError(
            f"{KEY} {shown} cannot be read: it is damaged, holds code to run, or is no file of "
            "weights; save the tensors alone, torch.save(model.state_dict(), ...)"
        ) from None
    while isinstance(content, Mapping):
        wrapper = next((w for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if wrapper is None:
            break
        logger.info("%s %s: taking %r out of %s", KEY, path, wrapper, list(map(str, content))[:9])
        content = content[wrapper]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {name: value for name, value in tensors if isinstance(value, Tensor)}
    if not state:
        kind = type(content).__name__
        keys = f" of {', '.join(map(str, content))[:80]}" if isinstance(content, Mapping) else ""
        raise ZssError(f"{KEY} {shown} holds a {kind}{keys}; save model.state_dict()")
    return state


def _content(path: str) -> object:
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    # Training code of timm and others keeps its arguments beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def bare_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what stands in front of all names but those of heads, such as ``module.``."""
    body = [name for name in state if not _of_a_head(name)]
    for prefix in _PREFIXES:
        if body and all(name.startswith(prefix) for name in body):
            return bare_names({name.removeprefix(prefix): x for name, x in state.items()})
    return dict(state)


class Match(NamedTuple):
    """What a file gives to a model."""

    state: dict[str, Tensor]  # complete, by the model's names
    matched: int
    missing: list[str]  # of the model
    unknown: list[str]  # of the file
    misshapen: list[str]  # of the model
    left_out: list[str]  # of the file: heads and other parts that the model does without

    @property
    def problems(self) -> list[str]:
        return [*self.misshapen, *self.missing, *self.unknown]


def match(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], others: Collection[str] = ()
) -> Match:
    """Find the tensors of a model in a file.

    Names count as equal whether parts are joined by dots or by underscores: timm joins the first
    two of some models by an underscore, and puts ``model.`` before others, for feature maps only.

    Args:
        wanted: state of the model.
        given: tensors of the file.
        others: names that may be in the file without being wanted, besides heads.
    """
    by_name = {_plain(name): name for name in given}
    state, matched, missing, misshapen = dict(wanted), 0, [], []
    for name, value in wanted.items():
        found = by_name.pop(_plain(name), None)
        if found is None:
            missing += [] if name.endswith(_COUNTER) else [name]
        elif given[found].shape != value.shape:
            misshapen.append(f"{name} {tuple(given[found].shape)} not {tuple(value.shape)}")
        else:
            state[name] = given[found]
            matched += 1
    allowed = {_plain(name) for name in others}
    rest = {name: _of_a_head(name) or plain in allowed for plain, name in by_name.items()}
    return Match(
        state=state,
        matched=matched,
        missing=missing,
        unknown=[name for name, may_stay in rest.items() if not may_stay],
        misshapen=misshapen,
        left_out=[name for name, may_stay in rest.items() if may_stay],
    )


def load_matching(
    module: nn.Module,
    candidates: Iterable[Mapping[str, Tensor]],
    path: str,
    *,
    others: Collection[str] = (),
    remedy: str,
) -> None:
    """Load the first of several readings of a file that fits ``module`` completely.

    Args:
        candidates: the tensors under different names, the likeliest first; tried one by one.
        path: of the file, for messages.
        others: see `match`.
        remedy: what to give instead.

    Raises:
        ZssError: none fits; says how near the best one came.
    """
    wanted, best = module.state_dict(), None
    for candidate in candidates:
        found = match(wanted, candidate, others)
        if best is None or len(found.problems) < len(best.problems):
            best = found
        if not best.problems:
            break
    if best.problems:
        raise ZssError(
            f"{KEY} {_shown(path)} is of another model: {best.matched} of {len(wanted)} tensors "
            f"fit, {len(best.missing)} missing, {len(best.misshapen)} misshapen, "
            f"{len(best.unknown)} unknown, such as {best.problems[0][:45]}; {remedy}"
        )
    # Not the module's own method: those of some libraries take things out or rename them.
    nn.Module.load_state_dict(module, best.state)
    left_out = f", left out: {', '.join(best.left_out)}" if best.left_out else ""
    logger.info("%d tensors of the student from %s%s", best.matched, path, left_out)


def first_line(error: BaseException, length: int = 120) -> str:
    """Beginning of what a library has to say about an error."""
    line = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    return line if len(line) <= length else f"{line[:length]}..."


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")


def _of_a_head(name: str) -> bool:
    return name.split(".")[0] in _HEADS


def _shown(path: str) -> str:
    return path if len(path) <= 60 else f"...{path[-57:]}"
