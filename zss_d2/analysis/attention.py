"""A picture of cross-attention: images and one column of maps per trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from torch import nn

from zss_d2.analysis.comparison import choose
from zss_d2.analysis.names import short_names
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.files.images import read_image
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.drawing.figures import image_grid
from zss_d2.drawing.lettering import class_labels, drawn_title, style
from zss_d2.errors import ZssError
from zss_d2.modeling.inference.resize import upsample
from zss_d2.utils.text import wrapped

# Letters of a title above a column.
TITLE_WIDTH = 28


def require_attention(cfg: CfgNode, model: nn.Module) -> None:
    """Raise `ZssError` where the method of a model has no cross-attention."""
    if not hasattr(model, "attention_map"):
        raise ZssError(f"{cfg.MODEL.META_ARCHITECTURE} has no cross-attention to show")


@torch.inference_mode()
def attention_maps(
    cfg: CfgNode, model: nn.Module, record: dict, size: tuple[int, int]
) -> np.ndarray:
    """Cross-attention of one image for all classes of the data set, enlarged to ``size``.

    Returns:
        array (K, height, width).

    Raises:
        ZssError: the method has no cross-attention.
    """
    require_attention(cfg, model)
    image = ZeroShotMapper(cfg, is_train=False)(dict(record))["image"]
    names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).stuff_classes
    maps = model.attention_map(model.normalise(image)[None], names)
    height, width = image.shape[1:]
    maps = upsample(maps, model.padded_size((height, width)))[..., :height, :width]
    return upsample(maps, size)[0].cpu().numpy()


def largest(mask: np.ndarray, ids: Sequence[int]) -> int | None:
    """Of the classes ``ids`` the one with most pixels in mask (H, W); None: there is none."""
    if not ids:
        return None
    areas = {index: int((mask == index).sum()) for index in ids}
    best = max(areas, key=areas.get)
    return best if areas[best] else None


def draw(
    folders: Sequence[Path],
    models: Sequence[tuple[CfgNode, nn.Module]],
    dataset: str,
    number: int,
) -> Figure:
    """The picture for runs that were tested on the same data set.

    Args:
        folders: of the runs, a column each.
        models, dataset: of `zss_d2.analysis.comparison.load_models`.
        number: of images, up to two rows each.

    Raises:
        ZssError: a method has no cross-attention, or masks are all void.
    """
    metadata = MetadataCatalog.get(dataset)
    classes = list(metadata.stuff_classes)
    unseen = [classes.index(name) for name in metadata.unseen_classes]
    groups = (unseen, [i for i in range(len(classes)) if i not in unseen])
    titles = [wrapped(drawn_title(name), TITLE_WIDTH) for name in ("image", *short_names(folders))]
    labels = class_labels(classes)

    rows = []  # image, outline, class, a map per run
    for record in choose(DatasetCatalog.get(dataset), number, metadata):
        mask = read_labels(record["sem_seg_file_name"], metadata)
        image = read_image(record["file_name"])
        maps = [attention_maps(cfg, model, record, mask.shape) for cfg, model in models]
        for index in filter(lambda x: x is not None, (largest(mask, ids) for ids in groups)):
            rows.append((image, mask == index, index, [x[index] for x in maps]))

    if not rows:
        raise ZssError(f"{dataset}: the masks of the chosen images are void; take more --images")
    sizes = [image.shape[:2] for image, *_ in rows]
    figure, axes = image_grid(sizes, 1 + len(folders), width=2.2, margin=0.3, left=0.4)
    for line, (image, inside, index, maps) in zip(axes, rows, strict=True):
        name = f"{labels[index]}\n(unseen)" if index in unseen else labels[index]
        line[0].set_ylabel(name, fontsize="small", **style([name]))
        for axis, shown in zip(line, (image, *maps), strict=True):
            axis.imshow(shown, cmap="magma")
            axis.contour(inside, levels=[0.5], colors="white", linewidths=0.8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize="small", **style([title]))
    return figure
