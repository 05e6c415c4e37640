"""How images are taken through a model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from zss_d2.errors import ZssError

# What may be None.
_OPTIONAL = ("seen_bias", "size", "tile", "batch")

# Of labels in pictures, 0..1, unless another is given.
OPACITY = 0.5


@dataclass(frozen=True)
class Options:
    """Every field but ``batch`` changes results; None leaves it to the config of the model.

    Args:
        seen_bias: subtracted from the scores of classes that are called as one whose labels the
            model was trained with.
        size: shorter edge, px, that images have for the network; 0: as they are. Images that are
            read window by window stay as they are where it is None.
        tile: side, px, of what the network sees at once of a large image; 0: always the whole;
            None: the size of its windows or crops, for images of more than four times their area.
        overlap: of neighbouring tiles, as a share of their side; they are blended there.
        batch: images, tiles or windows that go through the network together, mirrored ones counted.
        class_scores: keep the scores of every word, not only the best.
    """

    seen_bias: float | None = None
    size: int | None = None
    tile: int | None = None
    overlap: float = 0.25
    batch: int | None = None
    class_scores: bool = False

    def __post_init__(self) -> None:
        for name, kind, least, most in (
            ("seen_bias", Real, -1, 1),
            ("size", Integral, 0, 65535),
            ("tile", Integral, 0, 65535),
            ("overlap", Real, 0, 0.5),
            ("batch", Integral, 1, 65535),
        ):
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, kind) or not least <= value <= most:
                number = "a whole number" if kind is Integral else "a number"
                raise ZssError(f"{name} is {value!r}; give {number} from {least} to {most}")
