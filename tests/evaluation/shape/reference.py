"""The same counts in the slowest and plainest way: flood fill and windows, pixel by pixel."""

from collections import Counter

import numpy as np

from zss_d2.evaluation.shape.boundary import boundary_distance
from zss_d2.evaluation.shape.counts import COLUMNS

Pixel = tuple[int, int]


def flood(labels: np.ndarray, void: int) -> list[tuple[int, set[Pixel]]]:
    """Label and pixels of every connected component."""
    height, width = labels.shape
    left = {(y, x) for y in range(height) for x in range(width) if labels[y, x] != void}
    found = []
    while left:
        start = left.pop()
        label, area, queue = int(labels[start]), {start}, [start]
        while queue:
            y, x = queue.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and labels[near] == label:
                    left.remove(near)
                    area.add(near)
                    queue.append(near)
        found.append((label, area))
    return found


def in_boundary(labels: np.ndarray, y: int, x: int, void: int, distance: int) -> bool:
    """Whether another class or the outside is within a square around the pixel."""
    height, width = labels.shape
    if min(y, x) < distance or y + distance >= height or x + distance >= width:
        return True
    around = labels[y - distance : y + distance + 1, x - distance : x + distance + 1]
    return any(label not in (labels[y, x], void) for label in around.ravel())


def slow_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """As `shape_counts`."""
    void = num_classes
    prediction = np.where(truth == void, void, prediction)
    counts = {name: np.zeros(num_classes, int) for name in COLUMNS}
    for label, area in flood(truth, void):
        votes = Counter(int(prediction[pixel]) for pixel in area)
        most = max(votes.values())
        counts["regions"][label] += 1
        counts["region_px"][label] += len(area)
        counts["majority_px"][label] += most
        counts["right_majority_px"][label] += len(area) * (votes[label] == most)
        inside = np.full(truth.shape, void)
        for pixel in area:
            inside[pixel] = prediction[pixel]
        counts["pieces"][label] += len(flood(inside, void))
    shown = set(truth.ravel().tolist())
    for label, area in flood(prediction, void):
        counts["fragments"][label] += label in shown
        counts["predicted_px"][label] += len(area)
        if not any(truth[pixel] == label for pixel in area):
            counts["strays"][label] += 1
            counts["stray_px"][label] += len(area)
    distance = boundary_distance(*truth.shape)
    for y, x in np.argwhere(truth != void):
        t, p = truth[y, x], prediction[y, x]
        true = in_boundary(truth, y, x, void, distance)
        predicted = in_boundary(prediction, y, x, void, distance)
        counts["boundary_both"][t] += true and predicted and t == p
        counts["boundary_either"][t] += true
        counts["boundary_either"][p] += predicted and not (true and t == p)
    return np.stack([counts[name] for name in COLUMNS], axis=1)
