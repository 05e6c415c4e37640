"""What a file says of itself, so that it can be used without this project."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import zss_d2
from zss_d2.data.spec.registry import given_colours
from zss_d2.drawing.colours import class_colours
from zss_d2.exchange.export.graph import SegmentationGraph
from zss_d2.predict.predictor import Predictor

# Of the layout of what follows; raised when a key changes its meaning.
FORMAT = 1


def describe(
    predictor: Predictor, graph: SegmentationGraph, names: Sequence[str], seen_bias: float
) -> dict[str, Any]:
    """Plain values by key; docs/deploy.md has the list.

    Args:
        names: of the classes whose embeddings are in the file, or in the one beside it.
        seen_bias: that is subtracted in the file.
    """
    model, settings, test = predictor.segmentor, graph.settings, predictor.cfg.INPUT
    return {
        "zss_d2": zss_d2.__version__,
        "format": FORMAT,
        "method": type(model).__name__,
        "classes": list(names),
        "seen": [name in model.labelled_classes for name in names],
        "palette": _palette(names),
        "inputs": list(settings.inputs),
        "outputs": list(settings.outputs),
        "embeddings": "input" if settings.embeddings else "baked",
        "image": "float32 RGB in 0..255, (batch, 3, height, width)",
        "normalisation": "inside",
        "mean": model.pixel_mean.flatten().tolist(),
        "std": model.pixel_std.flatten().tolist(),
        "size": "any" if settings.size is None else list(settings.size),
        "multiple_of": model.size_divisibility if settings.size is None else 1,
        "shorter_edge": test.MIN_SIZE_TEST,
        "longer_edge_at_most": test.MAX_SIZE_TEST if test.MIN_SIZE_TEST else 0,
        "resize": "inside" if settings.resize else "outside",
        "argmax": "inside" if settings.argmax else "outside",
        "activation": _activation(graph),
        "seen_bias": seen_bias,
    }


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Every value as JSON, which is what a file can hold."""
    return {key: json.dumps(value) for key, value in metadata.items()}


def from_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    """Inverse of `as_texts`."""
    return {key: json.loads(value) for key, value in texts.items()}


def _activation(graph: SegmentationGraph) -> str:
    """What makes scores of enlarged logits: "softmax" over the classes, or "sigmoid" of each."""
    # Of two equal logits; in place in some methods.
    score = graph.model.activate(torch.full((1, 3, 1, 1), 2.0))[0, 0].item()
    return "softmax" if abs(score - 1 / 3) < 1e-6 else "sigmoid"


def _palette(names: Sequence[str]) -> list[list[int]]:
    """A colour of every class, RGB in 0..255, as pictures of this project have it."""
    return np.round(255 * class_colours(names, given_colours())).astype(int).tolist()
