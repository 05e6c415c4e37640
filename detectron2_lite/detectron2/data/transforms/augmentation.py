"""What an augmentation is, and what it is applied to."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList


class Augmentation:
    """A random choice of a transform.

    Subclasses define ``get_transform``. Its parameters name the attributes of the ``AugInput`` that
    the choice depends on; a single one is always the image. ``input_args`` overrides the names.
    """

    input_args: tuple[str, ...] | None = None

    # Keeps the constructor's arguments (``self._init(locals())``) as attributes.
    _init = Transform._set_attributes

    def get_transform(self, *args: Any) -> Transform:
        """Choose the transform for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, apply it to ``aug_input`` in place and return it for other data.

        Raises:
            AttributeError: the input lacks what ``get_transform`` asks for.
        """
        if self.input_args is None:
            names = tuple(inspect.signature(self.get_transform).parameters)
            self.input_args = ("image",) if len(names) == 1 else names
        for name in self.input_args:
            if not hasattr(aug_input, name):
                raise AttributeError(
                    f"{type(self).__name__} needs {name!r}, which {type(aug_input).__name__} lacks"
                )
        transform = self.get_transform(*(getattr(aug_input, name) for name in self.input_args))
        assert isinstance(transform, Transform), (
            f"{type(self).__name__}.get_transform returned {type(transform)}, not a Transform"
        )
        aug_input.transform(transform)
        return transform

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = ()) -> Any:
        """Uniform numbers in [low, high), or in [0, low) without ``high``."""
        return np.random.uniform(0 if high is None else low, low if high is None else high, size)

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            if value is not parameter.default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class _Always(Augmentation):
    """A transform in the place of an augmentation: no choice."""

    input_args = ()

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm


def as_augmentation(tfm_or_aug: Transform | Augmentation) -> Augmentation:
    """The argument itself, or the augmentation that always chooses this transform."""
    assert isinstance(tfm_or_aug, (Transform, Augmentation)), tfm_or_aug
    return tfm_or_aug if isinstance(tfm_or_aug, Augmentation) else _Always(tfm_or_aug)


class AugmentationList(Augmentation):
    """Augmentations (or transforms) applied one after the other."""

    def __init__(self, augs: Sequence[Transform | Augmentation]) -> None:
        self.augs = [as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Apply all in place; returns what was applied."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


class AugInput:
    """What augmentations look at and change.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or floating point.
        boxes: (N, 4) as x0, y0, x1, y1 in pixels.
        sem_seg: (H, W) labels.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        assert isinstance(image, np.ndarray), f"an image is a numpy array, not {type(image)}"
        assert image.ndim in (2, 3), f"an image has 2 or 3 dimensions, not {image.shape}"
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Replace every attribute by its transformed version."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augs: Sequence[Transform | Augmentation]) -> TransformList:
        """``AugmentationList(augs)(self)``."""
        return AugmentationList(augs)(self)
