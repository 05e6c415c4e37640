"""The one path from a normalised image to scores, or labels, of the size that is asked for.

    image -> scaled -> windows -> batches through the network, mirrored too -> windows averaged
          -> scales averaged -> resized -> less the seen bias -> scores, or their argmax

Score maps of many classes at the size of an image from a camera are the largest thing that
inference holds: 171 classes at 4000 x 3000 px are 8 GB. Above ``protocol.max_scores`` they are
therefore made in pieces that tile the result, of which only the labels are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import torch
from torch import Tensor

from zss_d2.modeling.inference.argmax import LabelsOnly, best_class
from zss_d2.modeling.inference.protocol import InferenceProtocol
from zss_d2.modeling.inference.resize import (
    rescale,
    rescaled_size,
    resize_rows,
    resize_scores,
    row_slices,
    upsample,
)
from zss_d2.modeling.inference.windows import Piece, Windows


class Network(Protocol):
    """What the pipeline asks of a model; it knows neither windows nor scales nor scores' sizes."""

    labelled_classes: Sequence[str]
    """Names of the classes that the seen bias is subtracted from."""

    def logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) of any size -> logits (B, K, h, w), single precision.

        They cover the images padded at the right and bottom to `padded_size`.
        """

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width that images of ``size`` (H, W) have once padded."""

    def activate(self, logits: Tensor) -> Tensor:
        """Logits (B, K, H, W) -> scores in 0..1, every pixel by itself; may work in place."""


def segment(
    network: Network,
    image: Tensor,
    class_names: Sequence[str],
    size: tuple[int, int],
    protocol: InferenceProtocol,
) -> Tensor | LabelsOnly:
    """Segment one image into the named classes.

    Args:
        network: a `ZeroShotSegmentor`, say.
        image: (3, H, W), normalised.
        class_names: K of them.
        size: height and width of the result.

    Returns:
        scores (K, height, width) in 0..1, less the seen bias; `LabelsOnly` if they would be more
        numbers than ``protocol.max_scores``.

    Raises:
        NanScoresError: scores that only labels are wanted of are NaN.
    """
    return next(segment_batch(network, image[None], class_names, [size], protocol))


def segment_batch(
    network: Network,
    images: Tensor,
    class_names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    protocol: InferenceProtocol,
) -> Iterator[Tensor | LabelsOnly]:
    """Segment images (B, 3, H, W) that go through the network together; see `segment`.

    Args:
        sizes: height and width of every result.

    Returns:
        what `segment` returns, image by image, each made when it is asked for.
    """
    views = [_view(network, images, scale, class_names, protocol) for scale in protocol.scales]
    for index, size in enumerate(sizes):
        in_pieces = len(class_names) * size[0] * size[1] > protocol.max_scores
        pieces = _score_pieces(views, index, tuple(images.shape[-2:]), size, in_pieces)
        if protocol.seen_bias:
            seen = images.new_tensor([name in network.labelled_classes for name in class_names])
            bias = protocol.seen_bias * seen.view(-1, 1, 1)
            pieces = _lowered(pieces, bias)
        yield (
            _best_only(pieces, len(class_names), size, images.device)
            if in_pieces
            else _joined(pieces, size)
        )


class _View(Protocol):
    """The images of a batch at one scale."""

    size: tuple[int, int]

    def pieces(self, index: int, in_pieces: bool) -> Iterator[Piece]:
        """Scores of an image at `size`; asked for once per image, in the order of the batch.

        Args:
            in_pieces: never as a whole.
        """


@dataclass(frozen=True)
class _WholeImages(_View):
    """Images that the network sees as a whole: their coarse logits, which are few, are kept."""

    network: Network
    logits: Sequence[Tensor]
    size: tuple[int, int]

    def pieces(self, index: int, in_pieces: bool) -> Iterator[Piece]:
        logits = [view[index : index + 1] for view in self.logits]
        for rows in row_slices(self.size[0]) if in_pieces else (None,):
            scores = _scores(self.network, logits, self.size, rows)[0]
            yield rows or slice(0, self.size[0]), slice(0, self.size[1]), scores


@dataclass(frozen=True)
class _SlidingWindows(_View):
    """Images that the network sees through windows, those of one image after those of another."""

    windows: Windows
    scores: Iterator[Tensor]

    @property
    def size(self) -> tuple[int, int]:
        return self.windows.size

    def pieces(self, index: int, in_pieces: bool) -> Iterator[Piece]:
        yield from self.windows.average(self.scores)


def _view(
    network: Network,
    images: Tensor,
    scale: float,
    class_names: Sequence[str],
    protocol: InferenceProtocol,
) -> _View:
    """Images (B, 3, H, W) at a scale."""
    if protocol.slide_crop is None:
        images = rescale(images, scale, protocol.antialias)
        logits = _view_logits(network, images, class_names, protocol.flip)
        return _WholeImages(network, logits, tuple(images.shape[-2:]))
    windows = Windows(
        rescaled_size(images.shape[-2:], scale),
        protocol.slide_crop,
        protocol.slide_stride or protocol.slide_crop,
    )
    # Scaled image by image, as they are come to.
    cut = chain.from_iterable(
        windows.cut(rescale(image[None], scale, protocol.antialias)[0]) for image in images
    )
    scores = window_scores(network, cut, class_names, protocol.flip, protocol.slide_batch)
    return _SlidingWindows(windows, scores)


def _score_pieces(
    views: Sequence[_View],
    index: int,
    present: tuple[int, int],
    size: tuple[int, int],
    in_pieces: bool,
) -> Iterator[Piece]:
    """Scores of an image of the size ``present`` at ``size``, the mean over all scales."""
    if present == size and len(views) == 1 and views[0].size == size:
        yield from views[0].pieces(index, in_pieces)
        return
    # Held as a whole, at the size of the image.
    total = None
    for view in views:
        scores = resize_scores(_joined(view.pieces(index, in_pieces=False), view.size), present)
        total = scores if total is None else total.add_(scores)
    if len(views) > 1:
        total = total / len(views)
    if not in_pieces:
        yield slice(0, size[0]), slice(0, size[1]), resize_scores(total, size)
        return
    for rows in row_slices(size[0]):
        yield rows, slice(0, size[1]), resize_rows(total[None], size, rows)[0]


def _lowered(pieces: Iterable[Piece], bias: Tensor) -> Iterator[Piece]:
    return ((rows, columns, scores - bias) for rows, columns, scores in pieces)


def _best_only(
    pieces: Iterable[Piece], num_classes: int, size: tuple[int, int], device: torch.device
) -> LabelsOnly:
    labels = torch.empty(size, dtype=torch.int32, device=device)
    best = torch.empty(size, device=device)
    for rows, columns, scores in pieces:
        labels[rows, columns], best[rows, columns] = best_class(scores)
    return LabelsOnly(labels, num_classes, best)


def window_scores(
    network: Network,
    windows: Iterable[Tensor],
    class_names: Sequence[str],
    flip: bool,
    batch: int,
) -> Iterator[Tensor]:
    """Scores (K, h, w) of windows (3, h, w) of one size, in their order, ``batch`` at a time.

    They need not be of one image; windows of the next one are read only as they are needed.
    """
    windows = iter(windows)
    while group := list(islice(windows, batch)):
        images = torch.stack(group)
        logits = _view_logits(network, images, class_names, flip)
        yield from _scores(network, logits, tuple(images.shape[-2:])).unbind()


def _view_logits(
    network: Network, images: Tensor, class_names: Sequence[str], flip: bool
) -> list[Tensor]:
    """Logits of images (B, 3, H, W) and, with ``flip``, of the mirrored ones."""
    views = (images, images.flip(-1)) if flip else (images,)
    return [network.logits(view, class_names) for view in views]


def _scores(
    network: Network, logits: Sequence[Tensor], size: tuple[int, int], rows: slice | None = None
) -> Tensor:
    """`_view_logits` of images of ``size`` (H, W) -> scores (B, K, H, W), the mean of the views.

    Args:
        rows: make these alone.
    """
    padded = network.padded_size(size)
    scores = []
    for view in logits:
        large = upsample(view, padded) if rows is None else resize_rows(view, padded, rows)
        # Without the padding, which single rows have at the right only.
        scores.append(network.activate(large[..., : size[0], : size[1]]))
    if len(scores) == 1:
        return scores[0]
    plain, mirrored = scores
    return (plain + mirrored.flip(-1)) / 2


def _joined(pieces: Iterator[Piece], size: tuple[int, int]) -> Tensor:
    """Scores (K, H, W) of pieces that tile them."""
    whole = None
    for rows, columns, scores in pieces:
        if tuple(scores.shape[1:]) == size:
            return scores
        if whole is None:
            whole = scores.new_empty(len(scores), *size)
        whole[:, rows, columns] = scores
    return whole
