"""How tokens and class embeddings lie to each other, as functions of arrays.

All vectors are brought to unit norm, so a distance is one of directions: the variance of a set of
unit vectors is 1 - |their mean|^2, which is half of the mean squared distance of two of them, drawn
with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Label of a token that is void or mixed.
NO_CLASS = -1


def token_labels(
    labels: np.ndarray,
    image: tuple[int, int],
    padded: tuple[int, int],
    grid: tuple[int, int],
    num_classes: int,
    share: float = 0.75,
) -> np.ndarray:
    """The class of every token: that of at least ``share`` of its pixels, or `NO_CLASS`.

    Void pixels and those of the padding are pixels of a token as any others.

    Args:
        labels: (H, W), class ids; anything outside of 0..num_classes - 1 is void. They may be of
            another size than the image that the network sees.
        image: (height, width) that the network sees, px, at the upper left of what it pads.
        padded: (height, width) that the tokens cover, px.
        grid: (h, w) of the tokens.
        share: more than a half, or of two classes that have it the lower id is taken.

    Returns:
        (h, w) int64.
    """
    counts = token_pixels(labels, image, padded, grid, num_classes)
    # Pixels of labels in a whole token, also of one that reaches into the padding.
    scale = np.divide(labels.shape, image) * np.divide(padded, grid)
    whole = scale[0] * scale[1]
    return np.where(counts.max(axis=2) >= share * whole, counts.argmax(axis=2), NO_CLASS)


def token_pixels(
    labels: np.ndarray,
    image: tuple[int, int],
    padded: tuple[int, int],
    grid: tuple[int, int],
    num_classes: int,
) -> np.ndarray:
    """Pixels of every class in every token (h, w, K); arguments as of `token_labels`."""
    rows, columns = (
        _cells(*sides) for sides in zip(labels.shape, image, padded, grid, strict=True)
    )
    cell = rows[:, None] * grid[1] + columns
    known = (labels >= 0) & (labels < num_classes)
    return np.bincount(
        cell[known] * num_classes + labels[known], minlength=grid[0] * grid[1] * num_classes
    ).reshape(*grid, num_classes)


def _cells(side: int, image: int, padded: int, number: int) -> np.ndarray:
    """In which of ``number`` tokens that share ``padded`` px the middles of ``side`` pixels are."""
    middles = (np.arange(side) + 0.5) * image / side
    return np.minimum((middles * number / padded).astype(np.int64), number - 1)


class Plane(NamedTuple):
    """A plane through points, to draw vectors in."""

    centre: Tensor  # (C,)
    axes: Tensor  # (2, C), orthonormal
    explained: float  # share of the points' variance in the plane

    def place(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (..., 2)."""
        return (vectors - self.centre) @ self.axes.T


def fit_plane(points: Tensor) -> Plane:
    """The first two principal components of points (K, C), K and C at least 2.

    The sign of an axis is the one with which its largest entry is positive.
    """
    centre = points.mean(dim=0)
    _, values, axes = torch.linalg.svd(points - centre, full_matrices=False)
    axes, power = axes[:2], values.square()
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    explained = float(power[:2].sum() / power.sum()) if power.sum() > 0 else float("nan")
    return Plane(centre, axes * largest.sign(), explained)


def nearest_other(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Of every class the nearest other one, by cosine.

    Args:
        vectors: (..., K, C), unit norm, K at least 2.

    Returns:
        cosine (..., K) and index (..., K).
    """
    cosine = vectors @ vectors.transpose(-2, -1)
    cosine.diagonal(dim1=-2, dim2=-1).fill_(float("-inf"))
    return tuple(cosine.max(dim=-1))


class Spread:
    """Sums over unit vectors of K classes: how far they are from their mean, and the means apart.

    Args:
        num_classes: K.
        dim: C.
    """

    def __init__(self, num_classes: int, dim: int):
        self.count = torch.zeros(num_classes, dtype=torch.float64)
        self.total = torch.zeros(num_classes, dim, dtype=torch.float64)

    def add(self, vectors: Tensor, ids: Tensor) -> None:
        """Unit vectors (N, C) of the classes (N,)."""
        self.count += ids.bincount(minlength=len(self.count)).double()
        self.total.index_add_(0, ids, vectors.double())

    @property
    def means(self) -> Tensor:
        """(K, C), NaN without vectors."""
        return self.total / self.count[:, None]

    def within(self) -> Tensor:
        """Variance of each class (K,), in 0..1, NaN without vectors."""
        return 1 - self.means.square().sum(dim=1)

    def between(self) -> Tensor:
        """Squared distance of each class's mean to the mean of all of them (K,)."""
        return (self.means - self.means.nanmean(dim=0)).square().sum(dim=1)


class TokenMeasures:
    """Of the tokens of one stage: cosines to class embeddings, and their spread.

    Args:
        num_classes: K, at least 2.
        dim: C.
        plane: to draw them in.
    """

    def __init__(self, num_classes: int, dim: int, plane: Plane):
        self.spread = Spread(num_classes, dim)
        self.cloud = Cloud(num_classes, plane)
        self._own, self._other, self._right = torch.zeros(3, num_classes, dtype=torch.float64)

    def add(self, tokens: Tensor, ids: Tensor, classes: Tensor) -> None:
        """Tokens (N, C) of one image and their classes (N,); embeddings (K, C) there."""
        tokens, classes = F.normalize(tokens, dim=1), F.normalize(classes, dim=1)
        cosine = tokens @ classes.T
        own = cosine.gather(1, ids[:, None])[:, 0]
        other = cosine.scatter(1, ids[:, None], float("-inf")).amax(dim=1)
        for total, values in (
            (self._own, own),
            (self._other, other),
            (self._right, own > other),
        ):
            total.index_add_(0, ids, values.double())
        self.spread.add(tokens, ids)
        self.cloud.add(tokens, ids)

    def per_class(self) -> dict[str, Tensor]:
        """Measure -> (K,), NaN for a class without tokens; see `TOKENS`."""
        count = self.spread.count
        values = self._own / count, self._other / count, self._right / count
        return dict(
            zip(TOKENS, (*values, self.spread.within(), self.spread.between()), strict=True)
        )


TOKENS = {
    "own": "cosine of a token to the embedding of its own class",
    "best other": "cosine to the nearest embedding of another class",
    "own nearest": "share of the tokens whose own class is nearer than any other",
    "within": "variance of the tokens of a class, as unit vectors",
    "between": "squared distance of the mean of a class to the mean of all class means",
}


class QueryMeasures:
    """Of the class embeddings of one stage: what became of those that entered.

    Args:
        num_classes: K, at least 2.
        dim: C.
        plane: to draw them in.
        seen: (K,) bool.
    """

    def __init__(self, num_classes: int, dim: int, plane: Plane, seen: Tensor):
        self.spread = Spread(num_classes, dim)
        self.cloud = Cloud(num_classes, plane)
        self._seen = seen
        self._sums = torch.zeros(5, num_classes, dtype=torch.float64)

    def add(self, queries: Tensor, entered: Tensor, text: Tensor) -> None:
        """Embeddings (K, C) of one image, those that entered the decoder, and CLIP's own."""
        queries, entered, text = (F.normalize(x, dim=1) for x in (queries, entered, text))
        cosine, index = nearest_other(queries)
        _, before = nearest_other(entered)
        self._sums += torch.stack(
            [
                (queries * entered).sum(dim=1),
                (queries * text).sum(dim=1),
                cosine,
                index != before,
                self._seen[index],
            ]
        ).double()
        ids = torch.arange(len(queries), device=queries.device)
        self.spread.add(queries, ids)
        self.cloud.add(queries, ids)

    def per_class(self) -> dict[str, Tensor]:
        """Measure -> (K,); see `QUERIES`."""
        values = self._sums / self.spread.count
        return dict(zip(QUERIES, (*values, self.spread.within()), strict=True))


QUERIES = {
    "to entered": "cosine to the embedding that entered the decoder (t_hat)",
    "to text": "cosine to CLIP's embedding of the class",
    "nearest other": "cosine to the nearest other class of the same image",
    "neighbour changed": "share of the classes whose nearest other class is not that of t_hat",
    "neighbour seen": "share of the classes whose nearest other class is a seen one",
    "over images": "variance over the images, as unit vectors",
}


class Cloud:
    """Mean and covariance of vectors of K classes in a plane."""

    def __init__(self, num_classes: int, plane: Plane):
        self.plane = plane
        self._count = torch.zeros(num_classes, dtype=torch.float64)
        self._sum = torch.zeros(num_classes, 2, dtype=torch.float64)
        self._products = torch.zeros(num_classes, 2, 2, dtype=torch.float64)

    def add(self, vectors: Tensor, ids: Tensor) -> None:
        """Vectors (N, C) of the classes (N,)."""
        places = self.plane.place(vectors).double()
        self._count += ids.bincount(minlength=len(self._count)).double()
        self._sum.index_add_(0, ids, places)
        self._products.index_add_(0, ids, places[:, :, None] * places[:, None])

    @property
    def means(self) -> Tensor:
        """(K, 2), NaN without vectors."""
        return self._sum / self._count[:, None]

    @property
    def covariances(self) -> Tensor:
        """(K, 2, 2)."""
        outer = self.means[:, :, None] * self.means[:, None]
        return self._products / self._count[:, None, None] - outer


def group_means(per_class: dict[str, Tensor], groups: dict[str, Sequence[int]]) -> dict[str, dict]:
    """Group -> measure -> mean over its classes, NaN ones left out; NaN of none.

    Of tokens there is ``within / between`` too, the ratio of the two means: of a group that
    contracts toward its classes it falls.
    """
    found: dict[str, dict] = {}
    for name, ids in groups.items():
        means = {x: float(values[list(ids)].nanmean()) for x, values in per_class.items()}
        if "between" in means:
            between = means["between"]
            means["within / between"] = means["within"] / between if between else float("nan")
        found[name] = means
    return found
