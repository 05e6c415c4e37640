"""What `pipeline.run` does with the images of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zss_d2.collection.inputs import Image
from zss_d2.collection.state.journal import DONE, FAILED, Journal, stamp_of
from zss_d2.collection.work.pipeline import Fatal
from zss_d2.collection.work.progress import Progress
from zss_d2.errors import ZssError
from zss_d2.modeling.inference.argmax import NanScoresError
from zss_d2.predict.decode import load_image
from zss_d2.predict.formats import ImageFormat, record
from zss_d2.predict.options import Options
from zss_d2.predict.result import Prediction
from zss_d2.predict.words import Words

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor


@dataclass(frozen=True)
class Job:
    """What is to be made of every image.

    Attributes:
        formats: of files per image.
        masks: records have masks.
        drawing: options of the overlay.
    """

    words: Words
    options: Options
    folder: Path
    formats: Mapping[str, ImageFormat]
    masks: bool
    drawing: Mapping[str, Any]


class ImageWork:
    """Reads, labels and writes images, and notes what became of them."""

    def __init__(self, predictor: Predictor, job: Job, journal: Journal, progress: Progress):
        self._predictor = predictor
        self._job = job
        self._journal = journal
        self._progress = progress

    def read(self, image: Image) -> np.ndarray:
        return _alone(lambda: load_image(image.path))

    def label(self, images: Sequence[np.ndarray]) -> Iterator[Prediction]:
        try:
            yield from self._predictor.label(images, self._job.words, self._job.options)
        except NanScoresError as error:
            raise ZssError(str(error)) from None
        except torch.OutOfMemoryError:
            raise _too_little_memory(len(images)) from None

    def write(self, image: Image, decoded: np.ndarray, result: Prediction) -> None:
        job = self._job
        files = {}
        for name, form in job.formats.items():
            path = form.path(job.folder, image.name)
            form.write(path, result, **job.drawing)
            files[name] = path.relative_to(job.folder).as_posix()
        content = record(result, image.file, job.masks)
        self._note(image, DONE, files=files, masks=job.masks, **content)
        self._progress.finished()

    def fail(self, image: Image, error: Exception) -> None:
        message = str(error).removeprefix(f"{image.path}: ")
        self._note(image, FAILED, file_name=image.file, error=message)
        self._progress.fail(f"{image.path}: {message}")

    def _note(self, image: Image, status: str, **content: Any) -> None:
        known = {"name": image.name, "status": status, "source": image.path}
        self._journal.append({**known, "stamp": stamp_of(image.path), **content})


def _alone(read: Callable[[], Any]) -> Any:
    """Call a reader; that the memory does not suffice is the image's fault."""
    try:
        return read()
    except MemoryError:
        raise ZssError("the image does not fit into memory; cut it into pieces") from None


def _too_little_memory(images: int) -> ZssError:
    if images > 1:
        return Fatal("the GPU has too little memory for a batch; lower --batch")
    return ZssError("the GPU has too little memory for the image; give a --size or --tile")
