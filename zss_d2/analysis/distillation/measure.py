"""One run of CLIP-ZSS at its checkpoints: GLM's retrieval, PLM's regions and prototypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.analysis.distillation.measures import (
    Coverage,
    PrototypeFit,
    coverage,
    fit_prototypes,
    margin,
    mean_of,
    region_classes,
)
from zss_d2.analysis.plm import Purity, bare_teacher, labels_at, purity, training_scenes
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.labels import hide_unseen
from zss_d2.engine import ZeroShotCheckpointer
from zss_d2.engine.last_checkpoint import iteration_of, numbered_checkpoints, peek
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.criterion import Examined
from zss_d2.modeling.methods.clip_zss.glm import predict_cls, retrieval
from zss_d2.modeling.methods.clip_zss.plm.oracle import ORACLE_LABELS
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED, resize_labels

METHOD = "CLIPZSS"
MEASURES = {
    "retrieval": "percent of the images whose CLS token is nearest to the student's prediction of "
    "it, among all of these images",
    "margin": "mean cosine of a prediction to its own CLS token, minus that to the nearest other",
    "regions": "pseudo regions of an image",
    "purity": "percent of their pixels that are of the region's most frequent class",
    "coverage": "percent of the pixels of unseen classes that lie in a region",
    "own": "cosine of a region's prototype to the text embedding of its class, of regions of "
    "unseen classes",
    "nearest seen": "cosine of the same prototypes to the nearest seen class",
    "own nearest": "percent of them to which no class is nearer than their own",
    "mIoU-U": "of the evaluation at that iteration, if there was one",
}
Point = dict[str, float]


def measure_run(run: RunFolder, cfg: CfgNode, number: int) -> dict[int, Point]:
    """Iteration, counted from 1 -> `MEASURES`, NaN where a run has no such part.

    Args:
        cfg: of the run.
        number: of training images with an unseen class, the first ones, seen as in a test.

    Raises:
        ZssError: the run is not of CLIP-ZSS, or its config builds no teacher.
    """
    if cfg.MODEL.META_ARCHITECTURE != METHOD:
        raise ZssError(
            f"{run.path} is a run of {cfg.MODEL.META_ARCHITECTURE}, which has no student; give "
            f"runs of {METHOD}"
        )
    if not cfg.MODEL.CLIP_ZSS.TEACHER:
        raise ZssError(
            f"{run.path}: MODEL.CLIP_ZSS.TEACHER is False; add --opts MODEL.CLIP_ZSS.TEACHER True"
        )
    model, scenes, teacher = run.model(cfg), training_scenes(cfg, number), bare_teacher(cfg)
    with torch.inference_mode():
        cls = [teacher(image[None].float().to(cfg.MODEL.DEVICE)).cls for image, _ in scenes]
    found = {}
    for iteration, path in checkpoints_of(run, cfg).items():
        if path is not None:
            ZeroShotCheckpointer(model, str(run.path)).load(str(path))
        found[iteration] = measure_model(model.eval(), cfg, scenes, torch.cat(cls))
        found[iteration]["mIoU-U"] = unseen_miou(run, iteration)
    return found


def checkpoints_of(run: RunFolder, cfg: CfgNode) -> dict[int, Path | None]:
    """Iteration, counted from 1 -> checkpoint, in order; 0 -> None of a run without any.

    ``model_final.pth`` takes the place of a numbered one of the same iteration.
    """
    found = {iteration + 1: path for iteration, path in numbered_checkpoints(run.path).items()}
    last = run.checkpoint(cfg)
    if not last:
        return {0: None}
    iteration = iteration_of(peek(Path(last)))
    found[max(found, default=0) if iteration is None else iteration + 1] = Path(last)
    return dict(sorted(found.items()))


def unseen_miou(run: RunFolder, iteration: int) -> float:
    """mIoU-U of the first test set after so many iterations; NaN without an evaluation there."""
    for line in reversed(run.history):
        # The evaluation after the last iteration is counted one on.
        if line["iteration"] in (iteration - 1, iteration):
            values = [x for name, x in line.items() if name.endswith("sem_seg/mIoU-U")]
            if values:
                return float(values[0])
    return float("nan")


@torch.inference_mode()
def measure_model(
    model: nn.Module, cfg: CfgNode, scenes: list[tuple[Tensor, np.ndarray]], cls: Tensor
) -> Point:
    """`MEASURES` but for the last one.

    Args:
        model: `CLIPZSS` in evaluation mode.
        scenes: of `training_scenes`.
        cls: CLIP's CLS tokens of their images (N, C).
    """
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    text = model.classifier(metadata.stuff_classes).float().cpu()
    predicted, regions, covered, fits = [], [], [], []
    for (image, truth), token in zip(scenes, cls, strict=True):
        examined, truth = _examine(model, image, truth, metadata)
        features = examined.features.float().flatten(2)
        predicted.append(predict_cls(token[None].float(), features))
        if examined.labels is not None:
            parts = _of_regions(examined, truth, metadata, text)
            for kept, part in zip((regions, covered, fits), parts, strict=True):
                kept.append(part)
    point = dict.fromkeys(MEASURES, float("nan"))
    if len(scenes) > 1:
        keys = F.normalize(cls.float(), dim=1)
        own = torch.arange(len(keys), device=keys.device)
        everything = torch.cat(predicted)
        point["retrieval"] = float(retrieval(everything, keys, own))
        point["margin"] = margin(everything, keys)
    if regions:
        total = Purity(*(sum(x) for x in zip(*regions, strict=True)))
        whole = Coverage(*(sum(x) for x in zip(*covered, strict=True)))
        all_fits = [fit for of_image in fits for fit in of_image]
        point |= {
            "regions": total.regions / len(scenes),
            "purity": total.value,
            "coverage": 100 * whole.covered / whole.pixels if whole.pixels else float("nan"),
            "own": mean_of([x.own for x in all_fits]),
            "nearest seen": mean_of([x.seen for x in all_fits]),
            "own nearest": 100 * mean_of([x.right for x in all_fits]),
        }
    return point


def _examine(
    model: nn.Module, image: Tensor, truth: np.ndarray, metadata: Metadata
) -> tuple[Examined, Tensor]:
    """What a training would see, and all labels (1, H, W) at the size of its padded image."""
    ignore = metadata.ignore_label
    unseen = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
    truth = labels_at(truth, tuple(image.shape[1:]))
    known = torch.from_numpy(hide_unseen(truth, unseen, ignore))
    everything = torch.from_numpy(truth)
    item = {"image": image, "sem_seg": known, ORACLE_LABELS: everything}
    return model.examine([item]), model.padded_masks([everything], ignore)


def _of_regions(
    examined: Examined, truth: Tensor, metadata: Metadata, text: Tensor
) -> tuple[Purity, Coverage, list[PrototypeFit]]:
    classes, num_seen = metadata.stuff_classes, examined.num_seen
    labels = examined.labels[0].cpu().numpy()
    truth_map = resize_labels(truth, labels.shape)[0].cpu().numpy()
    pseudo = np.where(labels >= num_seen, labels - num_seen, UNLABELLED)
    seen = torch.tensor([name not in metadata.unseen_classes for name in classes])
    unseen = seen.logical_not().nonzero().flatten().tolist()
    fits: list[PrototypeFit] = []
    if examined.prototypes is not None and examined.prototypes.shape[1] and seen.any():
        prototypes = examined.prototypes[0].float().cpu()
        of_regions = region_classes(pseudo, truth_map, len(prototypes), len(classes))
        present = examined.present[0].cpu()
        fits = fit_prototypes(prototypes[present], of_regions[present.numpy()], text, seen)
    return (
        purity(pseudo, truth_map, metadata.ignore_label),
        coverage(pseudo, truth_map, unseen),
        fits,
    )
