"""A model without a network: the left half of an image is the first word, the rest the second."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from zss_d2.predict.result import Prediction
from zss_d2.predict.words import Words


class FakePredictor:
    """Stands for a `zss_d2.predict.predictor.Predictor`; counts what it is asked."""

    def __init__(self, max_scores: int = 10**9):
        self.segmentor = SimpleNamespace(protocol=SimpleNamespace(max_scores=max_scores))
        self.calls: list[dict] = []

    def predict(self, image: np.ndarray, words: Words, **options) -> Prediction:
        self.calls.append(options)
        size = image.shape[:2]
        scores = np.full((len(words.vocabulary), *size), 0.25, np.float32)
        scores[0, :, : size[1] // 2] = 1
        scores[-1, :, size[1] // 2 :] = 0.75
        best, top = scores.argmax(0), scores.max(0)
        labels = words.label_ids[best]
        labels[top < words.thresholds[best]] = words.unknown_id
        kept = scores if options["class_scores"] else None
        return Prediction(labels, top, words, image, kept)
