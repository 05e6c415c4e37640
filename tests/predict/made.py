"""A prediction made by hand: every number of it can be checked by eye."""

import numpy as np

from zss_d2.predict.result import Prediction
from zss_d2.predict.words import Words

LABELS = np.array(
    [
        [0, 0, 1, 1, 2, 2],
        [0, 1, 1, 1, 2, 255],
        [0, 1, 1, 1, 255, 255],
        [0, 0, 0, 1, 254, 254],
    ],
    np.uint8,
)


def prediction(words: Words | None = None, labels: np.ndarray = LABELS) -> Prediction:
    """Labels with the classes cat, dog and cow, the first 3 ids; scores rise by 0.01 per pixel."""
    words = words or Words.of(["cat", "dog|hound", "cow", "horse"], unknown_below=0.1)
    scores = np.arange(labels.size, dtype=np.float32).reshape(labels.shape) / 100
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    return Prediction(labels, scores, words, image)


def random_prediction(words: Words, height: int, width: int) -> Prediction:
    """Labels of all ids, unknown and no data among them."""
    ids = [*range(len(words.names)), words.unknown_id, words.nodata_id]
    labels = np.random.default_rng(height).choice(ids, (height, width)).astype(words.dtype)
    return prediction(words, labels)
