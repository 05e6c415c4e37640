"""The one path from a normalised image to scores, or labels, of the size that is asked for.

    image -> scaled -> windows -> batches through the network, mirrored too -> windows averaged
          -> scales averaged -> resized -> less the seen bias -> what is unsure to the background
          -> scores, or their argmax

Score maps of many classes at the size of an image from a camera are the largest thing that
inference holds: 171 classes at 4000 x 3000 px are 8 GB. Above ``protocol.max_scores`` they are
therefore made in pieces that tile the result, of which only the labels are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from zss_d2.modeling.inference.argmax import LabelsOnly, best_class
from zss_d2.modeling.inference.batches import coarse_logits
from zss_d2.modeling.inference.protocol import BACKGROUND, InferenceProtocol
from zss_d2.modeling.inference.resize import (
    rescale,
    rescaled_size,
    resize_rows,
    resize_scores,
    row_slices,
    upsample,
)
from zss_d2.modeling.inference.windows import Piece, Windows
from zss_d2.utils.transfer import sent


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
        NanScoresError: scores that only labels are wanted of are NaN. On a GPU nobody waits for
            that: `best_class` of the labels raises it.
    """
    return next(segment_batch(network, [image], class_names, [size], protocol))


def segment_batch(
    network: Network,
    images: Sequence[Tensor],
    class_names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    protocol: InferenceProtocol,
) -> Iterator[Tensor | LabelsOnly]:
    """Segment images (3, H, W), which go through the network together; see `segment`.

    They may be of any sizes. So may be their windows and scales: what has one size shares the
    batches of ``protocol.batch``.

    Args:
        sizes: height and width of every result.

    Returns:
        what `segment` returns, image by image, each made when it is asked for.
    """
    if len(images) == 0:
        return
    device = images[0].device
    grids = [[_windows(image, scale, protocol) for scale in protocol.scales] for image in images]
    # In the order in which their scores are asked for; scaled as they are come to.
    inputs = (
        window
        for image, of_image in zip(images, grids, strict=True)
        for scale, grid in zip(protocol.scales, of_image, strict=True)
        for window in grid.cut(rescale(image[None], scale, protocol.antialias)[0])
    )
    logits = coarse_logits(network, inputs, class_names, protocol.flip, protocol.batch_on(device))
    bias = _bias(network, class_names, protocol.seen_bias, device)
    for image, of_image, size in zip(images, grids, sizes, strict=True):
        views = [_View(network, grid, logits) for grid in of_image]
        in_pieces = len(class_names) * size[0] * size[1] > protocol.max_scores
        pieces = _score_pieces(views, tuple(image.shape[-2:]), size, in_pieces)
        if bias is not None:
            pieces = _lowered(pieces, bias)
        if protocol.background_below and BACKGROUND in class_names:
            background = list(class_names).index(BACKGROUND)
            pieces = _above_background(pieces, background, protocol.background_below)
        yield (
            _best_only(pieces, len(class_names), size, device)
            if in_pieces
            else _joined(pieces, size)
        )


def _windows(image: Tensor, scale: float, protocol: InferenceProtocol) -> Windows:
    """The windows over an image (3, H, W) at a scale; the whole of it may be the only one."""
    size = rescaled_size(image.shape[-2:], scale)
    crop = protocol.slide_crop or max(size)
    return Windows(size, crop, protocol.slide_stride or crop)


def _bias(
    network: Network, class_names: Sequence[str], seen_bias: float, device: torch.device
) -> Tensor | None:
    """What is subtracted from the scores, (K, 1, 1); None for nothing."""
    if not seen_bias:
        return None
    seen = torch.tensor([float(name in network.labelled_classes) for name in class_names])
    return sent(seen_bias * seen.view(-1, 1, 1), device)


@dataclass(frozen=True)
class _View:
    """An image at one scale.

    Args:
        windows: of the image; the whole of it may be the only one.
        logits: of the windows of this view, and then of all that is asked for later.
    """

    network: Network
    windows: Windows
    logits: Iterator[tuple[Tensor, ...]]

    @property
    def size(self) -> tuple[int, int]:
        return self.windows.size

    def pieces(self, in_pieces: bool) -> Iterator[Piece]:
        """Scores of the image at `size`; asked for once, after those of earlier views.

        Args:
            in_pieces: never as a whole.
        """
        if self.windows.number > 1:
            window = self.windows.window_size
            wanted = islice(self.logits, self.windows.number)
            yield from self.windows.average(_scores(self.network, x, window)[0] for x in wanted)
            return
        logits = next(self.logits)
        for rows in row_slices(self.size[0]) if in_pieces else (None,):
            scores = _scores(self.network, logits, self.size, rows)[0]
            yield rows or slice(0, self.size[0]), slice(0, self.size[1]), scores


def _score_pieces(
    views: Sequence[_View],
    present: tuple[int, int],
    size: tuple[int, int],
    in_pieces: bool,
) -> Iterator[Piece]:
    """Scores of an image of the size ``present`` at ``size``, the mean over all scales."""
    if present == size and len(views) == 1 and views[0].size == size:
        yield from views[0].pieces(in_pieces)
        return
    # Held as a whole, at the size of the image.
    total = None
    for view in views:
        scores = resize_scores(_joined(view.pieces(in_pieces=False), view.size), present)
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


def _above_background(pieces: Iterable[Piece], background: int, least: float) -> Iterator[Piece]:
    """Where no score reaches ``least``, that of the class number ``background`` does."""
    for rows, columns, scores in pieces:
        unsure = scores.amax(dim=0) < least
        raised = scores[background].masked_fill(unsure, least)
        yield (
            rows,
            columns,
            torch.cat([scores[:background], raised[None], scores[background + 1 :]]),
        )


def _best_only(
    pieces: Iterable[Piece], num_classes: int, size: tuple[int, int], device: torch.device
) -> LabelsOnly:
    labels = torch.empty(size, dtype=torch.int32, device=device)
    best = torch.empty(size, device=device)
    for rows, columns, scores in pieces:
        labels[rows, columns], best[rows, columns] = best_class(scores, wait=False)
    return LabelsOnly(labels, num_classes, best)


def _scores(
    network: Network, logits: Sequence[Tensor], size: tuple[int, int], rows: slice | None = None
) -> Tensor:
    """Logits of inputs of ``size`` (H, W) -> scores (B, K, H, W), the mean with the mirrored ones.

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
