"""From a normalised image to scores or labels of its size; `pipeline.segment` is the only way."""

from zss_d2.modeling.inference.argmax import (
    Best,
    LabelsOnly,
    NanScoresError,
    argmax_labels,
    best_class,
)
from zss_d2.modeling.inference.fixed_classes import FixedClasses
from zss_d2.modeling.inference.pipeline import Network, segment, segment_batch
from zss_d2.modeling.inference.protocol import InferenceProtocol

__all__ = [
    "Best",
    "FixedClasses",
    "InferenceProtocol",
    "LabelsOnly",
    "NanScoresError",
    "Network",
    "argmax_labels",
    "best_class",
    "segment",
    "segment_batch",
]
