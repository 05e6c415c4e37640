"""Pseudo labels of CLIP-ZSS (PLM) on training images, and how pure their regions are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from torch import Tensor

from zss_d2.clip import ClipTowers
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.labels import hide_unseen
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.drawing.colours import colourise, distinct_colours
from zss_d2.drawing.figures import image_grid
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.build import region_settings
from zss_d2.modeling.methods.clip_zss.plm.fusion import clusters_per_scale
from zss_d2.modeling.methods.clip_zss.plm.kmeans import Clusters
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import (
    UNLABELLED,
    resize_labels,
)
from zss_d2.modeling.methods.clip_zss.teacher import Teacher


class Purity(NamedTuple):
    """Counts of pixels with a pseudo label; ratios of sums over images are what is reported."""

    majority: int  # pixels of the most frequent class of their region
    labelled: int  # pixels that have a class in the full ground truth
    pixels: int
    regions: int

    @property
    def value(self) -> float:
        """Share of the majority, percent; NaN without labelled pixels."""
        return 100 * self.majority / self.labelled if self.labelled else float("nan")


class Panels(NamedTuple):
    """What is drawn for one image."""

    image: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray  # (H, W), all classes
    scales: list[np.ndarray]  # clusters (H, W) per window size
    fused: np.ndarray  # regions (H, W)
    labels: np.ndarray  # F as ids of all classes, or the number of classes + region
    purity: Purity


def purity(pseudo: np.ndarray, truth: np.ndarray, ignore_label: int) -> Purity:
    """Compare regions with the full ground truth.

    Args:
        pseudo: (H, W), region ids from 0 on, negative elsewhere.
        truth: (H, W), class ids or the ignore label.
    """
    majority = labelled = 0
    regions = np.unique(pseudo[pseudo >= 0])
    for region in regions:
        classes = truth[(pseudo == region) & (truth != ignore_label)]
        if classes.size:
            majority += int(np.bincount(classes).max())
            labelled += classes.size
    return Purity(majority, labelled, int((pseudo >= 0).sum()), len(regions))


def total_purity(parts: Sequence[Purity]) -> Purity:
    """Sum of the counts over images."""
    return Purity(*(sum(column) for column in zip(*parts, strict=True)))


@torch.inference_mode()
def examine(cfg: CfgNode, number: int) -> list[Panels]:
    """The first ``number`` images of ``DATASETS.TRAIN`` that hold an unseen class.

    Raises:
        ZssError: there are none.
    """
    metadata, teacher = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), bare_teacher(cfg)
    return [
        _examine_image(cfg, teacher, image.to(cfg.MODEL.DEVICE), truth, metadata)
        for image, truth in training_scenes(cfg, number)
    ]


def training_scenes(cfg: CfgNode, number: int) -> list[tuple[Tensor, np.ndarray]]:
    """The first ``number`` images of ``DATASETS.TRAIN`` that hold an unseen class.

    Returns:
        image (3, H, W) uint8 as for a test, and its labels of all classes, at their own size.

    Raises:
        ZssError: there are none.
    """
    # All sets of one training have the same classes.
    metadata, mapper = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), ZeroShotMapper(cfg, False)
    unseen = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
    scenes: list[tuple[Tensor, np.ndarray]] = []
    for record in itertools.chain.from_iterable(map(DatasetCatalog.get, cfg.DATASETS.TRAIN)):
        if len(scenes) == number:
            break
        truth = read_labels(record["sem_seg_file_name"], metadata)
        if np.isin(truth, unseen).any():
            scenes.append((mapper(dict(record))["image"], truth))
    if not scenes:
        names = ", ".join(cfg.DATASETS.TRAIN)
        raise ZssError(f"{names} shows no unseen class; use another DATASETS.TRAIN")
    return scenes


def labels_at(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at another size, (h, w) int64, by nearest neighbours."""
    return resize_labels(torch.from_numpy(truth.astype(np.int64))[None], size)[0].numpy()


def bare_teacher(cfg: CfgNode) -> Teacher:
    """CLIP's image tower for images in 0..255."""
    towers = ClipTowers.from_config(cfg, plain=True)
    return Teacher(
        towers.image,
        pixel_mean=towers.pixel_mean,
        pixel_std=towers.pixel_std,
        student_mean=(0.0, 0.0, 0.0),
        student_std=(1.0, 1.0, 1.0),
        size=cfg.MODEL.CLIP_ZSS.TEACHER_SIZE,
    ).to(cfg.MODEL.DEVICE)


def _examine_image(
    cfg: CfgNode, teacher: Teacher, image: Tensor, truth: np.ndarray, metadata: object
) -> Panels:
    settings, size = cfg.MODEL.CLIP_ZSS, tuple(image.shape[1:])
    classes, ignore = metadata.stuff_classes, metadata.ignore_label
    dense = teacher(image[None].float()).dense
    truth = labels_at(truth, size)
    unseen = [classes.index(name) for name in metadata.unseen_classes]
    known = hide_unseen(truth, unseen, ignore)

    def enlarge(labels: Tensor) -> np.ndarray:
        return resize_labels(labels.view(1, *dense.shape[2:]), size)[0].cpu().numpy()

    targets = torch.from_numpy(np.where(known == ignore, UNLABELLED, known))[None].to(dense.device)
    inside = torch.ones_like(targets, dtype=torch.bool)
    how = region_settings(settings)
    fused = how.label(dense, targets, inside, len(classes), size)
    labels = fused.labels[0].cpu().numpy()
    tokens = torch.nn.functional.normalize(dense, dim=1)
    clusters = clusters_per_scale(
        tokens, how.windows, how.iterations, how.taking_part(targets == UNLABELLED, dense)
    )
    pseudo = np.where(labels >= len(classes), labels - len(classes), UNLABELLED)
    return Panels(
        image.permute(1, 2, 0).cpu().numpy().astype(np.uint8),
        truth,
        [enlarge(_in_regions(c)) for c in clusters],
        enlarge(fused.regions),
        labels,
        purity(pseudo, truth, ignore),
    )


def _in_regions(clusters: Clusters) -> Tensor:
    """The assignment, `UNLABELLED` for tokens that take no part."""
    found = clusters.assignment
    return found.where(found < clusters.counts.shape[1], UNLABELLED)


def draw(panels: Sequence[Panels], cfg: CfgNode) -> Figure:
    """One row per image; pseudo regions of F have colours that no class has."""
    windows = cfg.MODEL.CLIP_ZSS.WINDOWS
    num_classes = len(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_classes)
    largest = max(max(x.max() for x in (p.fused, p.labels, *p.scales)) for p in panels) + 1
    colours = distinct_colours(max(num_classes, int(largest)))
    titles = ["image", "ground truth", *(f"clusters, window {w}" for w in sorted(windows)[::-1])]
    titles += ["fused regions", "F"]
    sizes = [panel.image.shape[:2] for panel in panels]
    # Below each row stands a line.
    figure, axes = image_grid(sizes, len(titles), width=1.8, margin=0.3 + 0.2 * len(panels))
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize="medium")
    for row, panel in zip(axes, panels, strict=True):
        maps = [panel.truth, *map(_renumbered, panel.scales), _renumbered(panel.fused)]
        pictures = [panel.image, *(colourise(_grey(x), colours) for x in [*maps, panel.labels])]
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
        row[-1].set_xlabel(
            f"{panel.purity.regions} regions, {panel.purity.value:.0f} % pure", fontsize="small"
        )
    return figure


def _renumbered(regions: np.ndarray) -> np.ndarray:
    """Ids 0, 1, ... without gaps, so that few regions get colours far apart; -1 stays."""
    ids = np.unique(regions[regions >= 0])
    return np.where(regions >= 0, np.searchsorted(ids, regions), UNLABELLED)


def _grey(labels: np.ndarray) -> np.ndarray:
    """Ids for `colourise`, which paints what is beyond the last colour grey."""
    return np.where(labels >= 0, labels, np.iinfo(np.int64).max)
