"""Transforms (fixed operations, mostly fvcore's) and augmentations (random choices of them)."""

# ruff: noqa: F401  (re-exports)

from detectron2.data.transforms.augmentation import AugInput, Augmentation, AugmentationList
from detectron2.data.transforms.augmentation_impl import (
    FixedSizeCrop,
    RandomApply,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
    RandomFlip,
    RandomSaturation,
    ResizeScale,
    ResizeShortestEdge,
)
from detectron2.data.transforms.transform import ResizeTransform
from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
