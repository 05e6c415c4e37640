"""Files of one image: label map, overlay, arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zss_d2.errors import ZssError
from zss_d2.predict.palette import label_colours

if TYPE_CHECKING:
    from zss_d2.predict.result import Prediction

_JPEG_QUALITY = 90
# Of a side, px, by libjpeg.
_JPEG_LIMIT = 65500


def write_labels(prediction: Prediction, opacity: float, legend: bool, path: Path) -> None:
    """A PNG whose values are the label ids: 8 bit with a palette, or 16 bit grey."""
    image = Image.fromarray(prediction.labels)
    if prediction.labels.dtype == np.uint8:
        image.putpalette(label_colours(prediction.words).tobytes())
    image.save(path, format="PNG")


def write_overlay_png(prediction: Prediction, opacity: float, legend: bool, path: Path) -> None:
    prediction.overlay(opacity, legend).save(path, format="PNG")


def write_overlay_jpeg(prediction: Prediction, opacity: float, legend: bool, path: Path) -> None:
    picture = prediction.overlay(opacity, legend)
    if max(picture.size) > _JPEG_LIMIT:
        raise ZssError(
            f"the overlay has {picture.width} x {picture.height} px, and JPEG takes {_JPEG_LIMIT} "
            "at most; ask for the format overlay instead of overlay-jpg"
        )
    picture.save(path, format="JPEG", quality=_JPEG_QUALITY)


def write_arrays(prediction: Prediction, opacity: float, legend: bool, path: Path) -> None:
    """Labels, scores and names; ``class_scores`` and the ``words`` of its rows where kept."""
    words = prediction.words
    arrays = {
        "labels": prediction.labels,
        "scores": prediction.scores,
        "classes": np.array(prediction.classes),
        "unknown_id": np.array(words.unknown_id),
        "nodata_id": np.array(words.nodata_id),
    }
    if prediction.class_scores is not None:
        arrays["class_scores"] = prediction.class_scores.astype(np.float16)
        arrays["words"] = np.array(words.vocabulary.names)
    # A path without the suffix .npz would get one.
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
