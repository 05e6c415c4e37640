"""What a released checkpoint of ZegCLIP tells of its model, its data and its training."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import open_clip
from torch import Tensor

from zss_d2.clip.weights.formats import fitting_models
from zss_d2.data.spec.benchmark import Benchmark, load_benchmark
from zss_d2.errors import ZssError
from zss_d2.exchange.mmsegmentation import Released
from zss_d2.exchange.zegclip.names import EMPTY_WEIGHT, POSITIONS, PROMPTS
from zss_d2.exchange.zegclip.positions import shrink

logger = logging.getLogger(__name__)

BENCHMARKS = ("voc", "coco_stuff", "context59", "context60")
SETTINGS = ("inductive", "transductive", "supervised")
# What the released configs leave open by the number of classes of the loss alone, and what not.
_BY_NUMBER = {("voc", 15): "inductive", ("coco_stuff", 171): "supervised"}
# Largest error of a position embedding that was enlarged, as a share of its largest value; those of
# single precision are 1e-7, of half precision 1e-3.
_TOLERANCE = 2e-3
_IMAGE, _TEXT = "image_encoder.visual.", "text_encoder."


@dataclass(frozen=True)
class Sizes:
    """What the shapes of the tensors say.

    Attributes:
        clip: ``MODEL.CLIP.NAME``.
        positions: of that CLIP's own grid (1 + g * g, C).
        error: see `Shrunk`.
        image: side of the images of the training, px.
        prompts: per layer.
        decoder_layers, ffn_dim: of the decoder.
        classes: of the loss; None: the file does not say.
    """

    clip: str
    positions: Tensor
    error: float
    image: int
    prompts: int
    decoder_layers: int
    ffn_dim: int
    classes: int | None


def sizes_of(state: Mapping[str, Tensor], released: Mapping[str, Tensor]) -> Sizes:
    """Sizes of a model.

    Args:
        state: by our names, see `rename`.
        released: by the names of the file.

    Raises:
        ZssError: no CLIP of open_clip has these sizes; KeyError: a tensor is missing.
    """
    patch = state[f"{_IMAGE}conv1.weight"].shape[-1]
    grid = _side(len(state[POSITIONS]) - 1)
    clip, (positions, error) = _clip_of(state, grid)
    layers = {x.split(".")[2] for x in state if x.startswith("decoder.layers.")}
    weight = released.get(EMPTY_WEIGHT)
    blocks = {x.split(".")[4] for x in state if x.startswith(f"{_IMAGE}transformer.resblocks.")}
    if len(state[PROMPTS]) != len(blocks):
        raise ZssError(
            f"prompts for {len(state[PROMPTS])} of {len(blocks)} layers; here every layer has a "
            "set, as in the released models"
        )
    return Sizes(
        clip,
        positions,
        error,
        image=grid * patch,
        prompts=state[PROMPTS].shape[1],
        decoder_layers=len(layers),
        ffn_dim=len(state["decoder.layers.0.ffn.0.weight"]),
        classes=None if weight is None else len(weight) - 1,
    )


def _clip_of(state: Mapping[str, Tensor], grid: int) -> tuple[str, tuple[Tensor, float]]:
    """The CLIP whose towers have these sizes, and its position embedding out of the enlarged one.

    Of several that differ in their grid, such as ViT-L-14 and ViT-L-14-336, it is the one whose
    grid the file's was enlarged from.
    """
    towers = {f"visual.{x[len(_IMAGE) :]}": v for x, v in state.items() if x.startswith(_IMAGE)}
    towers |= {x[len(_TEXT) :]: v for x, v in state.items() if x.startswith(_TEXT)}
    names = fitting_models(towers, any_grid=True)
    if not names:
        width = state[f"{_IMAGE}conv1.weight"].shape[0]
        raise ZssError(f"towers of another size than any CLIP of open_clip, {width} channels wide")
    tried = {}
    for name in names:
        vision = open_clip.get_model_config(name)["vision_cfg"]
        side = vision.get("image_size", 224) // vision["patch_size"]
        if side <= grid:
            tried.setdefault(side, (name, shrink(state[POSITIONS], side)))
    fitting = [x for x in tried.values() if x[1].error < _TOLERANCE]
    if not fitting:
        raise ZssError(
            f"a position embedding of {grid} x {grid} patches that is no enlargement of that of "
            f"{names[0]}, as in the released models"
        )
    return fitting[0]


def _side(patches: int) -> int:
    side = round(patches**0.5)
    if side * side != patches:
        raise ZssError(f"a position embedding of {patches} patches, which is no square")
    return side


def benchmark_of(released: Released, classes: int | None, given: str | None) -> Benchmark:
    """The benchmark of a checkpoint: as given, by its class names, or by their number.

    Args:
        classes: of the loss, all of the benchmark or the seen ones.
        given: ``--benchmark``.

    Raises:
        ZssError: nothing tells it; it has other numbers of classes than the file.
    """
    known = [load_benchmark(name) for name in BENCHMARKS]
    if given:
        chosen = next(x for x in known if x.name == given)
    else:
        named = [x for x in known if x.classes == released.classes]
        numbers = [x for x in known if classes in (len(x.classes), len(x.seen_names))]
        if released.classes and not named:
            numbers = [x for x in numbers if len(x.classes) == len(released.classes)]
        found = named or numbers
        if len(found) != 1:
            what = "its number of classes" if classes is None else f"{classes} classes in its loss"
            raise ZssError(
                f"{what} does not tell the data set; say which it is: --benchmark "
                f"{' or '.join(x.name for x in found or known)}"
            )
        (chosen,) = found
    allowed = (len(chosen.classes), len(chosen.seen_names))
    if classes is not None and classes not in allowed:
        raise ZssError(
            f"{classes} classes in its loss, {chosen.name} has {allowed[0]}, of which {allowed[1]} "
            "are seen; give another --benchmark"
        )
    if released.classes and released.classes != chosen.classes:
        pairs = zip(released.classes, chosen.classes, strict=False)
        other = next((f"{a!r} and not {b!r}" for a, b in pairs if a != b), "their number")
        logger.warning("Its class names are not those of %s: %s", chosen.name, other)
    return chosen


def setting_of(
    model: Mapping[str, Any], benchmark: Benchmark, classes: int | None, given: str | None
) -> str:
    """``ZERO_SHOT.SETTING`` of a checkpoint.

    Args:
        model: of the config that it quotes.
        classes: of the loss.
        given: ``--setting``.

    Raises:
        ZssError: nothing tells it; the seen classes of the config are others.
    """
    seen = model.get("base_class")
    told = _BY_NUMBER.get((benchmark.name, classes))
    if isinstance(seen, list):
        every = len(seen) == len(benchmark.classes)
        told = "transductive" if model.get("self_training") is True else "inductive"
        told = "supervised" if every else told
        if not every and sorted(seen) != list(benchmark.seen_ids):
            raise ZssError(f"its seen classes are not those of {benchmark.name}")
    if given and told and given != told:
        logger.warning("--setting is %s, and the file says %s", given, told)
    if not (given or told):
        raise ZssError(
            "it does not tell how it was trained; say it: --setting inductive, transductive "
            "(self-training with the names of unseen classes) or supervised"
        )
    return given or told


def template_set_of(model: Mapping[str, Any]) -> str:
    """``MODEL.CLIP.TEMPLATE_SET``, by the file of embeddings that the config names; "": unknown."""
    name = str(model.get("load_text_embedding") or "")
    kinds = {"single": "single", "multi": "coco15"}
    return next((kinds[x] for x in re.split(r"[_./]", name) if x in kinds), "")


def numbers(value: Any, count: int) -> list[float] | None:
    """``count`` numbers of the config as a list; None: it is something else."""
    fits = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == count
    return list(value) if fits and all(isinstance(x, (int, float)) for x in value) else None


def looks_like(entries: Mapping[str, Any], names: Collection[str]) -> str:
    """In words, what a file is that is none of ZegCLIP's, and what to do with it.

    Args:
        entries: of the file.
        names: of its tensors.
    """

    def has(*parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    if "identity" in entries or has("image_encoder.visual."):
        return "a checkpoint of this project; give it as MODEL.WEIGHTS or --weights"
    if has("spatial_gating_unit", "patch_embed1."):
        return "SegNeXt's MSCAN; give it as MODEL.CLIP_ZSS.ENCODER.WEIGHTS"
    if has("visual.conv1.weight", "vision_model.") and not has("decode_head."):
        return "a CLIP; give it as MODEL.CLIP.PRETRAINED"
    if has("decode_head.", "backbone."):
        parts = sorted({".".join(x.split(".")[:2]) for x in names if x.startswith("decode_head.")})
        shown = ", ".join(parts[:3]) or "no decode_head"
        return f"another model of MMSegmentation ({len(names)} tensors, {shown})"
    return f"{len(names)} tensors of something else, such as {next(iter(names), '')[:50]!r}"
