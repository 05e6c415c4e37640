"""Weights that a student starts from: a local file, matched tensor by tensor to the model."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import Tensor, nn

from zss_d2.clip.weights.download import Wish
from zss_d2.clip.weights.file import read_file, require_usable, tensors_of, weights_error
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

KEY = "MODEL.CLIP_ZSS.ENCODER.WEIGHTS"

# What training code puts in front of every name.
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


def wish_for(name: str) -> Wish:
    """What the weights that a library has for a student are wanted for."""
    return Wish(
        f"MODEL.CLIP_ZSS.ENCODER.PRETRAINED True for {name!r}",
        "set it False, and ENCODER.WEIGHTS to a file of weights, or '' for random ones",
    )


def read_weights(path: str) -> dict[str, Tensor]:
    """Tensors by name from a file of safetensors or ``torch.save``; no code in it is run.

    Raises:
        ZssError: it is missing, unreadable, or holds no tensors by name.
    """
    if not os.path.exists(path):  # False for impossible names too
        raise weights_error(path, "no such file; give a file of weights, or ''", KEY)
    return tensors_of(read_file(Path(path), KEY).entries, path, KEY)


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
        raise weights_error(
            path,
            f"of another model: {best.matched} of {len(wanted)} tensors fit, {len(best.missing)} "
            f"missing, {len(best.misshapen)} misshapen, {len(best.unknown)} unknown, such as "
            f"{best.problems[0][:45]}; {remedy}",
            KEY,
        )
    require_usable(best.state, wanted, path, KEY)
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
