"""A model that labels images with words: what `zss_d2.load_model` returns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from zss_d2.data.pipeline.mapper import inference_augmentations
from zss_d2.errors import ZssError
from zss_d2.modeling import ZeroShotSegmentor
from zss_d2.modeling.inference import InferenceProtocol, LabelsOnly, best_class, segment_batch
from zss_d2.predict.decode import ImageSource, load_image
from zss_d2.predict.labelling import label_ids
from zss_d2.predict.options import Options
from zss_d2.predict.pretrained import save_pretrained
from zss_d2.predict.result import Prediction
from zss_d2.predict.tiles import ArraySource, TileLabels, TileSource, score_tiles
from zss_d2.predict.words import Words

X = TypeVar("X")
# Side of a tile where a config has neither windows nor crops, px.
_TILE_PX = 512
# An image is done in tiles if it has more pixels than so many of them.
_TILES_AT_ONCE = 4


class Predictor:
    """Labels images of any kind and size with any words.

    `predict` is for people; `label` and `label_tiles` are what it, the command and the web page
    are made of. Images are resized, and scores made, as in an evaluation of the same config.

    Attributes:
        cfg: config of the model.
        segmentor: the model, in evaluation mode.
        checkpoint: file of its weights; "": CLIP's alone.
        iteration: that these were saved after, counted from 0; None: unknown.
    """

    def __init__(
        self,
        cfg: CfgNode,
        segmentor: ZeroShotSegmentor,
        checkpoint: str = "",
        iteration: int | None = None,
    ):
        self.cfg = cfg
        self.segmentor = segmentor
        self.checkpoint = checkpoint
        self.iteration = iteration
        self._resizes: dict[int | None, T.Augmentation | None] = {}

    @property
    def device(self) -> torch.device:
        return self.segmentor.device

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Detectron2's list of dicts -> scores; see `ZeroShotSegmentor.forward`."""
        with torch.inference_mode():
            return self.segmentor(batched_inputs)

    def predict(
        self,
        images: ImageSource | Sequence[ImageSource],
        classes: Sequence[str] | Words,
        *,
        background: Sequence[str] = (),
        unknown_below: float | Mapping[str, float] = 0.0,
        templates: Sequence[str] | None = None,
        seen_bias: float | None = None,
        size: int | None = None,
        tile: int | None = None,
        overlap: float = 0.25,
        batch: int | None = None,
        class_scores: bool = False,
    ) -> Prediction | list[Prediction]:
        """Label an image, or a list of them, with words.

        Args:
            images: path, binary file, Pillow image, or array (H, W), (H, W, 3) or (H, W, 4), RGB,
                of uint8, uint16 or of floating point in 0..1; or a list of these.
            classes: words in the order of their ids; ``"sofa|couch"`` is one class with two
                wordings, whose embeddings are averaged.
            background: words that compete, and come out as class 0, ``background``.
            unknown_below: least score, 0..1, of all classes, or by class; what is below is
                `Prediction.unknown_id`.
            templates: sentences with one ``{}`` for the words; None: those of the model.
            seen_bias, size, tile, overlap, batch, class_scores: see `Options`.

        Returns:
            a `Prediction`, or for a list of images a list of them.

        Raises:
            ZssError: an image that cannot be read; words that are wrong, or that CLIP does not
                know; options out of range.
        """
        options = Options(seen_bias, size, tile, overlap, batch, class_scores)
        words = _words(classes, background, unknown_below, templates)
        if not isinstance(images, (list, tuple)):
            return next(self.label([load_image(images)], words, options))
        arrays = (load_image(image, f"image {index}") for index, image in enumerate(images))
        return list(self.label(arrays, words, options))

    def save_pretrained(
        self,
        folder: str | PathLike[str],
        *,
        overwrite: bool = False,
        results: str | PathLike[str] | None = None,
    ) -> Path:
        """Write the model to a folder to share; see `zss_d2.predict.pretrained.save_pretrained`."""
        return save_pretrained(self, folder, overwrite=overwrite, results=results)

    def check(self, words: Words, options: Options) -> None:
        """Raise `ZssError` for what no image could be labelled with.

        That is, words that CLIP does not know or cannot tell apart, or templates where the model
        has learned prompts. The embeddings are remembered.
        """
        small = np.zeros((64, 64, 3), np.uint8)
        next(self.label([small], words, replace(options, size=0, tile=0, class_scores=False)))

    def batch(self, options: Options) -> int:
        """Images, tiles or windows that go through the network together."""
        return options.batch or self.segmentor.protocol.batch_on(self.device)

    def network_size(self, size: tuple[int, int], options: Options) -> tuple[int, int]:
        """Height and width, px, that the network sees of an image of ``size`` (H, W)."""
        _, (height, width) = self._transform(size, options)
        return height, width

    def is_tiled(self, size: tuple[int, int], options: Options) -> bool:
        """Whether the network sees an image of ``size`` (H, W) in tiles.

        An evaluation with sliding windows has tiles of its own.
        """
        height, width = self.network_size(size, options)
        if options.tile is not None:
            return 0 < options.tile < max(height, width)
        sliding = self.cfg.TEST.SLIDE.ENABLED
        return not sliding and height * width > _TILES_AT_ONCE * self._tile(options) ** 2

    def label(
        self, images: Iterable[np.ndarray], words: Words, options: Options
    ) -> Iterator[Prediction]:
        """Label images (H, W, 3) uint8, RGB, in order.

        Up to `batch` of them that follow each other, and are of one size for the network, go
        through it together.

        Raises:
            ZssError: as `predict`; scores that are NaN; class scores that would be too many.
        """
        for size, group in self._batches(images, options):
            if size is None:
                yield self._label_in_tiles(group[0], words, options)
            else:
                yield from self._label_batch(group, words, options)

    def label_tiles(
        self, source: TileSource, words: Words, options: Options
    ) -> Iterator[TileLabels]:
        """Label an image that is too large for memory, in parts that tile it.

        Its pixels go through the network as they are, or scaled to ``options.size``.

        Raises:
            ZssError: as `label`; class scores are wanted.
        """
        if options.class_scores:
            raise ZssError("class scores are kept of whole images only, not of tiles")
        scale = options.size / min(source.size) if options.size else 1.0
        for rows, columns, scores in self._tile_scores(source, words, options, scale):
            best, top = (x.numpy(force=True) for x in best_class(scores))
            valid = source.valid(rows, columns)
            yield TileLabels(rows, columns, label_ids(best, top, words, valid), _clipped(top))

    def _batches(
        self, images: Iterable[np.ndarray], options: Options
    ) -> Iterator[tuple[tuple[int, int] | None, list[np.ndarray]]]:
        """Images with the size they have for the network, None for tiles, in groups."""
        group: list[np.ndarray] = []
        group_size = None
        for image in images:
            size = image.shape[:2]
            size = None if self.is_tiled(size, options) else self.network_size(size, options)
            if group and (size is None or size != group_size or len(group) == self.batch(options)):
                yield group_size, group
                group = []
            group, group_size = [*group, image], size
            if size is None:
                yield None, group
                group = []
        if group:
            yield group_size, group

    def _label_batch(
        self, images: Sequence[np.ndarray], words: Words, options: Options
    ) -> Iterator[Prediction]:
        inputs = [self._input(image, options) for image in images]
        sizes = [image.shape[:2] for image in images]
        vocabulary, protocol = words.vocabulary, self._protocol(options)
        results = segment_batch(self.segmentor, inputs, vocabulary, sizes, protocol)
        for image, scores in zip(images, _without_gradients(results), strict=True):
            yield self._prediction(image, scores, words, options)

    def _label_in_tiles(self, image: np.ndarray, words: Words, options: Options) -> Prediction:
        size = image.shape[:2]
        source = ArraySource(image)
        scale = self.network_size(size, options)[0] / size[0]
        labels, top = np.empty(size, words.dtype), np.empty(size, np.float32)
        kept = None
        if options.class_scores:
            self._require_room(len(words.vocabulary), size)
            kept = np.empty((len(words.vocabulary), *size), np.float32)
        for rows, columns, scores in self._tile_scores(source, words, options, scale):
            best, high = (x.numpy(force=True) for x in best_class(scores))
            labels[rows, columns] = label_ids(best, high, words)
            top[rows, columns] = _clipped(high)
            if kept is not None:
                kept[:, rows, columns] = _clipped(scores.numpy(force=True))
        return Prediction(labels, top, words, image, kept)

    def _tile_scores(
        self, source: TileSource, words: Words, options: Options, scale: float
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Scores (K, h, w) of the parts of an image that the network sees at a scale."""
        side = max(1, round((self._tile(options) or max(source.size)) / scale))
        # Bounded by the tile already.
        protocol = replace(self._protocol(options), max_scores=sys.maxsize)
        score = partial(self._score_tiles, scale=scale, words=words, protocol=protocol)
        pieces = score_tiles(source, score, len(words.vocabulary), side, options.overlap)
        return _without_gradients(pieces)

    def _score_tiles(
        self,
        tiles: Iterable[np.ndarray],
        *,
        scale: float,
        words: Words,
        protocol: InferenceProtocol,
    ) -> Iterator[Tensor]:
        tiles = iter(tiles)
        while group := list(islice(tiles, protocol.batch)):
            size = group[0].shape[:2]
            target = tuple(max(1, round(side * scale)) for side in size)
            resize = T.ResizeTransform(*size, *target) if target != size else T.NoOpTransform()
            inputs = [self._tensor(resize.apply_image(tile)) for tile in group]
            sizes = [size] * len(group)
            yield from segment_batch(self.segmentor, inputs, words.vocabulary, sizes, protocol)

    def _prediction(
        self, image: np.ndarray, scores: Tensor | LabelsOnly, words: Words, options: Options
    ) -> Prediction:
        kept = None
        if options.class_scores:
            if isinstance(scores, LabelsOnly):
                self._require_room(len(words.vocabulary), image.shape[:2])
            kept = _clipped(scores.numpy(force=True))
        best, top = (x.numpy(force=True) for x in best_class(scores))
        return Prediction(label_ids(best, top, words), _clipped(top), words, image, kept)

    def _require_room(self, num_words: int, size: tuple[int, int]) -> None:
        if num_words * size[0] * size[1] > self.segmentor.protocol.max_scores:
            limit = self.cfg.TEST.MAX_SCORES_MIB
            raise ZssError(
                f"the scores of {num_words} words at {size[1]}x{size[0]} px take more than the "
                f"{limit} MiB of TEST.MAX_SCORES_MIB; raise it, or keep the best scores only"
            )

    def _protocol(self, options: Options) -> InferenceProtocol:
        protocol = replace(self.segmentor.protocol, batch=self.batch(options))
        if options.seen_bias is None:
            return protocol
        return replace(protocol, seen_bias=options.seen_bias)

    def _tile(self, options: Options) -> int:
        if options.tile is not None:
            return options.tile
        slide, crop = self.cfg.TEST.SLIDE, self.cfg.INPUT.CROP
        if slide.ENABLED:
            return slide.CROP
        return max(crop.SIZE) if crop.ENABLED else _TILE_PX

    def _input(self, image: np.ndarray, options: Options) -> Tensor:
        transform, _ = self._transform(image.shape[:2], options)
        return self._tensor(transform.apply_image(image))

    def _transform(
        self, size: tuple[int, int], options: Options
    ) -> tuple[T.Transform, tuple[int, int]]:
        """The resize of an image of ``size`` (H, W), and the height and width it leads to."""
        if options.size not in self._resizes:
            self._resizes[options.size] = _resize(self.cfg, options.size)
        resize = self._resizes[options.size]
        if resize is None:
            return T.NoOpTransform(), size
        # Only its shape is looked at.
        transform = resize.get_transform(np.broadcast_to(np.uint8(0), (*size, 3)))
        return transform, (transform.new_h, transform.new_w)

    def _tensor(self, image: np.ndarray) -> Tensor:
        # A copy also where nothing is to be moved: torch warns of arrays that are read-only.
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
        return self.segmentor.normalise(pixels)


def _resize(cfg: CfgNode, size: int | None) -> T.Augmentation | None:
    """The resize of an evaluation, to another shorter edge if one is given."""
    if size is not None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.MIN_SIZE_TEST = size
        if size:
            cfg.INPUT.MAX_SIZE_TEST = sys.maxsize
    return next(iter(inference_augmentations(cfg)), None)


def _words(
    classes: Sequence[str] | Words,
    background: Sequence[str],
    unknown_below: float | Mapping[str, float],
    templates: Sequence[str] | None,
) -> Words:
    if not isinstance(classes, Words):
        return Words.of(classes, background, unknown_below, templates)
    if background or unknown_below or templates is not None:
        raise ZssError("classes are Words, which say background, unknown_below and templates")
    return classes


def _without_gradients(results: Iterator[X]) -> Iterator[X]:
    """Each result is made in inference mode, which does not reach what is done between them."""
    while True:
        with torch.inference_mode():
            try:
                result = next(results)
            except StopIteration:
                return
        yield result


def _clipped(scores: np.ndarray) -> np.ndarray:
    """In 0..1, which a seen bias may have led out of."""
    return np.clip(scores, 0, 1, dtype=np.float32)
