"""What `pipeline.run` does with the images of a collection."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zss_d2.collection.inputs import Image
from zss_d2.collection.raster.kinds import Kind
from zss_d2.collection.raster.labels import SUFFIX, write_labels
from zss_d2.collection.raster.large import LargeLabels, label_by_windows
from zss_d2.collection.raster.reading import Raster
from zss_d2.collection.state.journal import DONE, FAILED, Journal, stamp_of
from zss_d2.collection.work.pipeline import Fatal
from zss_d2.collection.work.progress import Progress
from zss_d2.errors import ZssError
from zss_d2.modeling.inference.argmax import NanScoresError
from zss_d2.predict.decode import load_image
from zss_d2.predict.formats import FORMATS, ImageFormat, record
from zss_d2.predict.options import Options
from zss_d2.predict.result import Prediction
from zss_d2.predict.words import Words
from zss_d2.utils.writing import WriteError

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


@dataclass(frozen=True)
class Decoded:
    """An image as it was read.

    Attributes:
        pixels: (H, W, 3) uint8, RGB; None: of a large image, which is read as it is labelled.
        valid: (H, W) bool, where a raster holds data; None: everywhere.
        place: of the labels of a raster, see `Raster.place`; None: of any other image.
    """

    image: Image
    pixels: np.ndarray | None
    valid: np.ndarray | None = None
    place: Mapping[str, Any] | None = None


class ImageWork:
    """Reads, labels and writes images, and notes what became of them."""

    def __init__(self, predictor: Predictor, job: Job, journal: Journal, progress: Progress):
        self._predictor = predictor
        self._job = job
        self._journal = journal
        self._progress = progress

    def read(self, image: Image, kind: Kind) -> Decoded:
        try:
            return self._read(image, kind)
        except ZssError:
            raise
        except MemoryError:
            raise ZssError("the image does not fit into memory; cut it into pieces") from None
        except Exception as error:  # whatever the content of a file that is none leads to
            reason = f"{type(error).__name__}: {error}"
            raise ZssError(f"unreadable image ({reason}); restore the file") from error

    def label(self, images: Sequence[Decoded]) -> Iterator[Prediction | LargeLabels]:
        words = self._job.words
        try:
            pixels = [x.pixels for x in images if x.pixels is not None]
            if len(pixels) < len(images):  # a large image is always by itself
                yield self._label_by_windows(images[0].image)
                return
            results = self._predictor.label(pixels, words, self._job.options)
            for decoded, result in zip(images, results, strict=True):
                if decoded.valid is not None:
                    result.labels[~decoded.valid] = words.nodata_id
                yield result
        except NanScoresError as error:
            raise ZssError(str(error)) from None
        except torch.OutOfMemoryError:
            raise _too_little_memory(len(images)) from None

    def write(self, image: Image, decoded: Decoded, result: Prediction | LargeLabels) -> None:
        try:
            self._write(image, decoded, result)
        except WriteError as error:
            # All others say that no image would fare better.
            if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                raise
            self.fail(image, error)
        except ZssError as error:  # what a format cannot hold
            self.fail(image, error)

    def fail(self, image: Image, error: Exception) -> None:
        message = str(error).removeprefix(f"{image.path}: ")
        self._note(image, FAILED, file_name=image.file, error=message)
        self._progress.fail()

    def _read(self, image: Image, kind: Kind) -> Decoded:
        if os.path.exists(image.path) and not os.path.isfile(image.path):
            raise ZssError(f"{image.path} is no file; leave it out")
        if kind is Kind.PLAIN:
            return Decoded(image, load_image(image.path))
        with Raster(image.path) as raster:
            if raster.left_out:
                self._progress.say(
                    f"of images with more than {len(raster.bands)} bands, such as some here, "
                    f"the first {len(raster.bands)} are looked at"
                )
            if kind is Kind.LARGE:
                self._require_formats_of_large(image)
                return Decoded(image, None)
            whole = slice(0, raster.size[0]), slice(0, raster.size[1])
            return Decoded(image, raster.read(*whole), raster.valid(*whole), raster.place())

    def _write(self, image: Image, decoded: Decoded, result: Prediction | LargeLabels) -> None:
        job = self._job
        if isinstance(result, LargeLabels):
            files = self._write_overview(image, result)
            content = result.record(image.file, job.masks)
        else:
            files = {
                name: self._write_format(name, form, image, decoded, result)
                for name, form in job.formats.items()
            }
            content = record(result, image.file, job.masks)
        shown = {name: path.relative_to(job.folder).as_posix() for name, path in files.items()}
        self._note(image, DONE, files=shown, masks=job.masks, **content)
        self._progress.finished()

    def _write_format(
        self, name: str, form: ImageFormat, image: Image, decoded: Decoded, result: Prediction
    ) -> Path:
        path = form.path(self._job.folder, image.name)
        if name == "labels" and decoded.place is not None:
            path = self._raster_path(image)
            nodata = decoded.valid is not None
            write_labels(
                path,
                decoded.place,
                nodata,
                result.words,
                lambda dataset: dataset.write(result.labels, 1),
            )
        else:
            form.write(path, result, **self._job.drawing)
        return path

    def _label_by_windows(self, image: Image) -> LargeLabels:
        # Class scores of such images are not kept, see below.
        options = replace(self._job.options, class_scores=False)
        with Raster(image.path) as raster:
            return label_by_windows(
                self._predictor,
                raster,
                self._job.words,
                options,
                self._raster_path(image),
                lambda share: self._progress.within(image.file, share),
            )

    def _write_overview(self, image: Image, labels: LargeLabels) -> dict[str, Path]:
        job = self._job
        files = {"labels": labels.path}
        if pictures := {name: x for name, x in job.formats.items() if name != "labels"}:
            with Raster(image.path) as raster:
                overview = labels.overview(raster)
            for name, form in pictures.items():
                files[name] = form.path(job.folder, image.name)
                form.write(files[name], overview, **job.drawing)
        return files

    def _require_formats_of_large(self, image: Image) -> None:
        if "npz" in self._job.formats:
            raise ZssError(
                f"{image.path}: arrays of an image that is read by windows would not fit into "
                "memory; leave npz out of --formats, or raise --large"
            )

    def _raster_path(self, image: Image) -> Path:
        labels = FORMATS["labels"].path(self._job.folder, image.name)
        return labels.with_name(labels.name.removesuffix(labels.suffix) + SUFFIX)

    def _note(self, image: Image, status: str, **content: Any) -> None:
        known = {"name": image.name, "status": status, "source": image.path}
        self._journal.append({**known, "stamp": stamp_of(image.path), **content})


def _too_little_memory(images: int) -> ZssError:
    if images > 1:
        return Fatal("the GPU has too little memory for a batch; lower --batch")
    return ZssError("the GPU has too little memory for the image; give a --size or --tile")
