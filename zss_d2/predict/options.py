"""How images are taken through a model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from zss_d2.errors import ZssError

# What may be None.
_OPTIONAL = ("seen_bias", "size", "tile", "batch")

# Of labels in pictures, 0..1, unless another is given.
OPACITY = 0.5
# Least and most; what lies outside takes for ever, and can only be a mistake. A side of less than
# two patches of the usual CLIP shows it nothing; more images at once fill every memory.
SIDE_PX = 32, 8192
BATCH = 1, 1024


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
            ("size", Integral, *SIDE_PX),
            ("tile", Integral, *SIDE_PX),
            ("overlap", Real, 0, 0.5),
            ("batch", Integral, *BATCH),
        ):
            value, may_be_0 = getattr(self, name), name in ("size", "tile")
            if value is None and name in _OPTIONAL:
                continue
            is_number = isinstance(value, kind)
            if not is_number or not (least <= value <= most or (may_be_0 and value == 0)):
                number = "a whole number" if kind is Integral else "a number"
                or_0 = "0, or " if may_be_0 else ""
                raise ZssError(f"{name} is {value!r}; give {or_0}{number} from {least} to {most}")
