"""What a mini CLIP can do without training on masks: name objects, and segment by its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.clip.image import ImageEncoder
from zss_d2.clip.towers import ClipTowers
from zss_d2.clip.wording import PromptSettings
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.mini.scene import STREAMS, Plan, Scene, draw_plan, draw_scene, scene_rng
from zss_d2.data.synthetic.mini.vocabulary import CLASSES, THINGS, VOID
from zss_d2.evaluation.metrics import class_iou, confusion_matrix, harmonic_mean, mean_over_present

TEMPLATES = ("a photo of a {}.", "{}")
_BATCH = 50


@dataclass(frozen=True)
class Probe:
    """Percentages on scenes with textures that pretraining did not show.

    Attributes:
        things, stuff: top-1 accuracy of CLS on scenes of one thing on one stuff, among 25 and 10.
        seen, unseen_things, unseen_stuff, harmonic: mIoU of value tokens (as in MaskCLIP) on dev
            scenes, void excluded, and the harmonic mean of seen and all unseen classes.
    """

    things: float
    stuff: float
    seen: float
    unseen_things: float
    unseen_stuff: float
    harmonic: float

    def __str__(self) -> str:
        return " | ".join(f"{name} {value:.1f}" for name, value in vars(self).items())


def probe(towers: ClipTowers, per_class: int = 8, dense_scenes: int = 100) -> Probe:
    """Measure a CLIP; see `Probe`.

    Args:
        per_class: single-object scenes per thing.
        dense_scenes: the first of the dev stream to segment.
    """
    weights = towers.text.classifier(CLASSES, PromptSettings(TEMPLATES))  # (K, C)
    things, stuff = _name_objects(towers, weights, per_class)
    scenes = [draw_scene("dev", index) for index in range(dense_scenes)]
    iou = class_iou(_dense_confusion(towers, weights, scenes))
    spec = load_benchmark("mini")
    unseen_things = [i for i in spec.unseen_ids if i < len(THINGS)]
    unseen_stuff = [i for i in spec.unseen_ids if i >= len(THINGS)]
    groups = (spec.seen_ids, unseen_things, unseen_stuff, spec.unseen_ids)
    means = [100 * mean_over_present(iou, list(ids)) for ids in groups]
    return Probe(things, stuff, *means[:3], harmonic_mean(means[0], means[3]))


def normalise(images: Tensor, towers: ClipTowers) -> Tensor:
    """Normalise uint8 images (B, 3, H, W) with the statistics of the towers."""
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (towers.pixel_mean, towers.pixel_std)
    )
    return (images - mean) / std


def _batches(scenes: Sequence[Scene], towers: ClipTowers) -> list[Tensor]:
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    return [normalise(chunk, towers) for chunk in images.split(_BATCH)]


@torch.no_grad()
def _name_objects(towers: ClipTowers, weights: Tensor, per_class: int) -> tuple[float, float]:
    """Return the accuracy in percent for the thing and for the stuff of single-object scenes."""
    scenes, truth = [], []
    for index in range(per_class * len(THINGS)):
        rng = scene_rng("probe", index)
        stuff = int(rng.integers(len(THINGS), len(CLASSES)))
        plan = Plan(things=(index % len(THINGS),), stuff=(stuff,))
        scenes.append(draw_plan(plan, STREAMS["probe"][0], rng))
        truth.append((plan.things[0], stuff - len(THINGS)))
    cls = torch.cat([towers.image(images).cls for images in _batches(scenes, towers)])
    scores = cls @ weights.T
    right = torch.stack([scores[:, : len(THINGS)].argmax(1), scores[:, len(THINGS) :].argmax(1)], 1)
    accuracy = 100 * (right == torch.tensor(truth)).float().mean(dim=0)
    return float(accuracy[0]), float(accuracy[1])


@torch.no_grad()
def _dense_confusion(towers: ClipTowers, weights: Tensor, scenes: Sequence[Scene]) -> np.ndarray:
    """Return the (K, K) confusion of the most similar class per pixel."""
    encoder = ImageEncoder(
        towers.image.visual, prompt_length=0, prompt_dropout=0.0, dense_tokens="value"
    )
    total = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    labels = torch.from_numpy(np.stack([scene.labels for scene in scenes]))
    for images, truth in zip(_batches(scenes, towers), labels.split(_BATCH), strict=True):
        tokens = F.normalize(encoder(images).dense, dim=1)
        scores = torch.einsum("bchw,kc->bkhw", tokens, weights)
        scores = F.interpolate(scores, size=images.shape[2:], mode="bilinear")
        total += confusion_matrix(scores.argmax(dim=1), truth, len(CLASSES), VOID).numpy()
    return total
