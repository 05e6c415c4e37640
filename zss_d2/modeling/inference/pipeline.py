"""The one path from a normalised image to scores, or labels, of the size that is asked for.

    image -> scaled -> windows -> batches through the network, mirrored too -> windows averaged
          -> scales averaged -> resized -> less the seen bias -> scores, or their argmax

Score maps of many classes at the size of an image from a camera are the largest thing that
inference holds: 171 classes at 4000 x 3000 px are 8 GB. Above ``protocol.max_scores`` they are
therefore made in pieces that tile the result, of which only the labels are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from zss_d2.modeling.inference.argmax import LabelsOnly, argmax_labels
from zss_d2.modeling.inference.protocol import InferenceProtocol
from zss_d2.modeling.inference.resize import (
    rescale,
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
    in_pieces = len(class_names) * size[0] * size[1] > protocol.max_scores
    pieces = _score_pieces(network, image, class_names, size, protocol, in_pieces)
    if protocol.seen_bias:
        seen = image.new_tensor([name in network.labelled_classes for name in class_names])
        bias = protocol.seen_bias * seen.view(-1, 1, 1)
        pieces = ((rows, columns, scores - bias) for rows, columns, scores in pieces)
    if not in_pieces:
        return _joined(pieces, size)
    labels = torch.empty(size, dtype=torch.int32, device=image.device)
    for rows, columns, scores in pieces:
        labels[rows, columns] = argmax_labels(scores)
    return LabelsOnly(labels, len(class_names))


def _score_pieces(
    network: Network,
    image: Tensor,
    class_names: Sequence[str],
    size: tuple[int, int],
    protocol: InferenceProtocol,
    in_pieces: bool,
) -> Iterator[Piece]:
    """Scores of an image (3, H, W) at ``size``, of all scales; ``in_pieces``: never as a whole."""
    present = tuple(image.shape[-2:])
    if present == size and protocol.scales == (1.0,):
        yield from _dense_pieces(network, image, class_names, protocol, in_pieces)
        return
    # Held as a whole, at the size of the image.
    total = None
    for scale in protocol.scales:
        view = rescale(image, scale, protocol.antialias)
        pieces = _dense_pieces(network, view, class_names, protocol, in_pieces=False)
        scores = resize_scores(_joined(pieces, tuple(view.shape[-2:])), present)
        total = scores if total is None else total.add_(scores)
    if len(protocol.scales) > 1:
        total = total / len(protocol.scales)
    if not in_pieces:
        yield slice(0, size[0]), slice(0, size[1]), resize_scores(total, size)
        return
    for rows in row_slices(size[0]):
        yield rows, slice(0, size[1]), resize_rows(total[None], size, rows)[0]


def _dense_pieces(
    network: Network,
    image: Tensor,
    class_names: Sequence[str],
    protocol: InferenceProtocol,
    in_pieces: bool,
) -> Iterator[Piece]:
    """Scores of an image (3, H, W) at its own size, at one scale."""
    size = tuple(image.shape[-2:])
    if protocol.slide_crop is None and in_pieces:
        # The network's coarse logits are few; they are enlarged some rows at a time.
        logits = _view_logits(network, image[None], class_names, protocol.flip)
        for rows in row_slices(size[0]):
            yield rows, slice(0, size[1]), _scores(network, logits, size, rows)[0]
        return
    crop = protocol.slide_crop or max(size)
    windows = Windows(size, crop, protocol.slide_stride or crop)
    yield from windows.average(
        window_scores(network, windows.cut(image), class_names, protocol.flip, protocol.slide_batch)
    )


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
