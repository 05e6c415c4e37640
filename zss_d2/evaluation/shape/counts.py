"""What an image says about the shape of predicted regions: integers per class, which add up."""

from __future__ import annotations

import numpy as np

from zss_d2.evaluation.shape.boundary import boundary, boundary_distance
from zss_d2.evaluation.shape.components import Joins, components, merged

# Columns of the counts. Region: a connected component of a class in the ground truth. Fragment: one
# of a class in the prediction. Pixels without a label are in neither.
COLUMNS = (
    "regions",
    "region_px",
    # Fragments of a class in images that show it.
    "fragments",
    # Pieces with one predicted label each that regions are cut into.
    "pieces",
    # Pixels of regions that carry the most frequent predicted label of their region.
    "majority_px",
    # Pixels of the regions whose most frequent label is the right one.
    "right_majority_px",
    "predicted_px",
    # Fragments without a pixel of their class in the ground truth, also in images without it.
    "strays",
    "stray_px",
    # Pixels that are in the boundary of their class in both maps, and in that of either.
    "boundary_both",
    "boundary_either",
)


def shape_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of one image -> (K, len(`COLUMNS`)) int64.

    Args:
        truth: (H, W) integers, classes 0..K-1 and K for pixels that count nowhere: they are taken
            out of both maps before regions and boundaries are looked for.
        prediction: (H, W) integers 0..K-1.

    Raises:
        ValueError: the maps have other shapes.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the prediction is {prediction.shape}, the ground truth {truth.shape}")
    counts = np.zeros((num_classes, len(COLUMNS)), np.int64)
    if truth.size == 0:
        return counts
    prediction = np.where(truth == num_classes, truth, prediction.astype(truth.dtype))
    columns = _region_counts(truth, prediction, num_classes)
    columns |= _boundary_counts(truth, prediction, num_classes)
    for index, name in enumerate(COLUMNS):
        counts[:, index] = columns[name][:num_classes]
    return counts


def _region_counts(truth: np.ndarray, prediction: np.ndarray, void: int) -> dict[str, np.ndarray]:
    """All but the boundaries, of maps with ``void`` at the same pixels -> per label, void too."""
    true_joins, predicted_joins = Joins.of(truth), Joins.of(prediction)
    joint = true_joins.both(predicted_joins)
    piece = components(joint)
    region, fragment = (merged(piece, x, joint) for x in (true_joins, predicted_joins))
    # Labels and pixels of pieces, from stretches of a row that lie in one piece.
    starts = np.ones(truth.shape, bool)
    np.logical_not(joint.right, out=starts[:, 1:])
    piece = piece[starts]
    true, predicted = _label_of(piece, truth[starts]), _label_of(piece, prediction[starts])
    size = np.bincount(piece, np.diff(np.flatnonzero(starts), append=truth.size))

    def per_label(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(labels, weights, void + 1).astype(np.int64)

    region_label, fragment_label = _label_of(region, true), _label_of(fragment, predicted)
    region_size, fragment_size = np.bincount(region, size), np.bincount(fragment, size)
    regions = per_label(region_label)
    stray = np.bincount(fragment, true == predicted) == 0
    # Pieces of a region with the same label vote together.
    votes, inverse = np.unique(region * (void + 1) + predicted, return_inverse=True)
    first = np.searchsorted(votes, np.arange(len(region_label)) * (void + 1))
    majority = np.maximum.reduceat(np.bincount(inverse, size), first)
    # Of labels that are equally frequent the right one counts.
    right = np.bincount(region, size * (true == predicted)) == majority
    return {
        "regions": regions,
        "region_px": per_label(true, size),
        "fragments": per_label(fragment_label) * (regions > 0),
        "pieces": per_label(true),
        "majority_px": per_label(region_label, majority),
        "right_majority_px": per_label(region_label, region_size * right),
        "predicted_px": per_label(predicted, size),
        "strays": per_label(fragment_label[stray]),
        "stray_px": per_label(fragment_label[stray], fragment_size[stray]),
    }


def _label_of(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Label of every component, from its parts: the component and the label of each."""
    found = np.empty(ids.max() + 1, np.int64)
    found[ids] = labels
    return found


def _boundary_counts(truth: np.ndarray, prediction: np.ndarray, void: int) -> dict[str, np.ndarray]:
    distance = boundary_distance(*truth.shape)
    true, predicted = (boundary(labels, void, distance) for labels in (truth, prediction))
    both = np.bincount(truth[true & predicted & (truth == prediction)], minlength=void + 1)
    either = (
        np.bincount(truth[true], minlength=void + 1)
        + np.bincount(prediction[predicted], minlength=void + 1)
        - both
    )
    return {"boundary_both": both, "boundary_either": either}
