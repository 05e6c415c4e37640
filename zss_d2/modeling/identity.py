"""What weights stand for: it travels with them in checkpoints, and is held against where they go.

Classes, settings that no shape shows, and what they were trained on before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from detectron2.config import CfgNode
from torch import Tensor, nn

from zss_d2.config.rules import value_of
from zss_d2.errors import ZssError

LEAKY = "unseen_location"
"""The value of ``ZERO_SHOT.SELF_TRAINING.PIXELS`` that looks at labels of unseen classes."""

logger = logging.getLogger(__name__)


class Identified(nn.Module):
    """A model whose checkpoints say what their weights stand for."""

    relies_on: ClassVar[tuple[str, ...]] = ()
    """Keys of the config that weights rely on without showing it in their shapes."""
    origin: ClassVar[tuple[str, ...]] = (
        *("classes", "train_classes", "labelled_classes", "self_training", "leaky_oracle"),
    )
    """What of its `identity` a checkpoint goes on to tell when others are trained from it."""

    def __init__(
        self,
        classes: Sequence[str],
        train_classes: Sequence[str],
        labelled_classes: Sequence[str],
        settings: Mapping[str, Any] | None = None,
    ):
        """
        Args:
            classes, train_classes, labelled_classes: see `ZeroShotSegmentor`.
            settings: values of `relies_on`.

        Raises:
            ZssError: labelled classes that are no training classes, or these no classes.
        """
        super().__init__()
        self.classes = tuple(classes)
        self.train_classes = tuple(train_classes)
        self.labelled_classes = tuple(labelled_classes)
        _require_within("train_classes", self.train_classes, "classes", self.classes)
        _require_within(
            "labelled_classes", self.labelled_classes, "train_classes", self.train_classes
        )
        self._settings = dict(settings or {})
        # What the loaded weights were trained on, and classes whose labels were hidden from them.
        self._origins: list[dict[str, Any]] = []
        self._hidden: set[str] = set()
        self.doubts: tuple[str, ...] = ()
        """Why scores of the loaded weights are not what the setting here says; short texts."""

    @classmethod
    def settings_from(cls, cfg: CfgNode) -> dict[str, Any]:
        """The values of `relies_on`, as a file keeps them."""
        values = {key: value_of(cfg, key) for key in cls.relies_on}
        return {k: list(x) if isinstance(x, (list, tuple)) else x for k, x in values.items()}

    def identity(self) -> dict[str, Any]:
        """What the weights stand for, as checkpoints remember it: plain values, lists, dicts."""
        return {
            "method": type(self).__name__,
            "classes": list(self.classes),
            "train_classes": list(self.train_classes),
            "labelled_classes": list(self.labelled_classes),
            "settings": self.settings(),
            "origins": self._origins,
        }

    def settings(self) -> dict[str, Any]:
        """What of the config the weights rely on without showing it in their shapes, by key."""
        return dict(self._settings)

    def adopt(self, identity: Mapping[str, Any], state: dict[str, Tensor]) -> None:
        """Hold what a checkpoint says of itself against this model, before its weights are loaded.

        Args:
            identity: `identity` of the model that was saved; empty if it does not say.
            state: its weights; a method may change them to what they mean here.

        Raises:
            ZssError: its weights mean something else here.
        """
        own = self.settings()
        for key, value in identity.get("settings", {}).items():
            if key in own and own[key] != value:
                logger.warning(
                    "The checkpoint was trained with %s %s, here it is %s", key, value, own[key]
                )
        ancestors = lineage(identity)
        trained = {name for x in ancestors for name in x.get("labelled_classes", ())}
        names = {name for x in ancestors for name in x.get("train_classes", ())} - trained
        leaked = [n for n in self.classes if n in trained and n not in self.labelled_classes]
        doubts = []
        if leaked:
            doubts.append(f"labels of {len(leaked)} unseen classes")
            logger.warning(
                "The checkpoint was trained with labels of %d classes that are unseen here, such "
                "as %r: mIoU-U and hIoU are no zero-shot scores",
                *(len(leaked), leaked[0]),
            )
        named = [n for n in self.classes if n in names and n not in self.train_classes]
        if named:
            doubts.append(f"names of {len(named)} unseen classes")
            logger.warning(
                "The checkpoint was trained with the names, though not the labels, of %d classes "
                "that are unseen here, such as %r: its scores are transductive, not inductive",
                *(len(named), named[0]),
            )
        present = self.identity()
        if any(map(_is_located, ancestors)) and not _is_located(present):
            doubts.append("LEAKY pseudo labels at the ground-truth places of unseen classes")
            logger.warning(
                "The checkpoint was self-trained with pseudo labels at the ground-truth places of "
                "unseen classes (PIXELS %s), a leak: mIoU-U and hIoU are no zero-shot scores",
                LEAKY,
            )
        oracles = {name for x in ancestors for name in x.get("leaky_oracle", ())}
        if oracles and not present.get("leaky_oracle"):
            doubts.append(f"LEAKY ORACLE {' and '.join(sorted(oracles))}")
            logger.warning(
                "The checkpoint's training looked at hidden labels of unseen classes "
                "(ZERO_SHOT.LEAKY_ORACLE %s): its scores are upper bounds",
                sorted(oracles),
            )
        origins = [{key: x[key] for key in self.origin if key in x} for x in ancestors]
        if {} in origins[:-1]:
            logger.warning(
                "The checkpoint was trained from weights that do not say what they were trained "
                "with; labels of unseen classes may have been among it"
            )
        self.doubts = tuple(doubts)
        own_origin = {key: present[key] for key in self.origin if key in present}
        self._origins = [
            x for i, x in enumerate(origins) if x != own_origin and x not in origins[:i]
        ]
        known = {} not in origins and set(identity["classes"]) == set(self.classes)
        self._hidden = set(self.classes) - trained if known else set()

    def require_setting(self) -> None:
        """Raise `ZssError` if the loaded weights are to be tested as what they are not.

        That is, as ``ZERO_SHOT.SETTING`` supervised, trained without labels of some classes.
        """
        if self._hidden and self.labelled_classes == self.classes:
            raise ZssError(
                "ZERO_SHOT.SETTING is supervised, but the checkpoint was trained without labels of "
                f"{len(self._hidden)} classes, such as {min(self._hidden)!r}; set it to inductive, "
                "which its scores then count as"
            )


def lineage(identity: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a checkpoint and those that it was trained from say of themselves, the oldest first.

    Those that do not tell labelled classes from training classes had labels of all of them.
    """
    said = [*identity.get("origins", ()), identity]
    return [
        {"labelled_classes": x["train_classes"], **x} if "train_classes" in x else x for x in said
    ]


def is_leaky(*identities: Mapping[str, Any]) -> bool:
    """Whether a training looked at labels of unseen classes that it was not to see."""
    return any(_is_located(x) or x.get("leaky_oracle") for x in identities)


def _is_located(identity: Mapping[str, Any]) -> bool:
    """Whether pseudo labels stood where the ground truth of unseen classes is."""
    return identity.get("self_training", {}).get("pixels") == LEAKY


def _require_within(name: str, some: Sequence[str], of: str, everything: Sequence[str]) -> None:
    if strange := [x for x in some if x not in everything]:
        raise ZssError(f"{name} has {strange[0]!r}, which is not among {of}; leave it out")
