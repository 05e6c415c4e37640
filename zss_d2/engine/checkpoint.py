"""Checkpoints that are written atomically and refuse to load into another model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor

from zss_d2.clip.weights.download import SCHEMES, Wish, url_file
from zss_d2.clip.weights.file import (
    made_by,
    read_file,
    require_file,
    require_usable,
    tensors_of,
    weights_error,
)
from zss_d2.config.model_folder import WEIGHTS, ModelFolder, weights_of
from zss_d2.engine.last_checkpoint import (
    POINTER,
    command_to_choose,
    find_last_checkpoint,
    iteration_of,
    newest_readable,
)
from zss_d2.errors import ZssError
from zss_d2.utils.writing import write_atomic

logger = logging.getLogger(__name__)

IDENTITY = "identity"
_KEY = "checkpoint"
# What a model folder says of its weights, which those of a run hold themselves.
_SAID = (IDENTITY, "iteration")
# What objects raise that are given a state which is not theirs.
_STATE_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError)


class ZeroShotCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer; a killed run leaves the old file, a wrong file is an error.

    A checkpoint also holds what its weights stand for, `ZeroShotSegmentor.identity`.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        if hasattr(self.model, IDENTITY):
            data[IDENTITY] = self.model.identity()
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", target)
        write_atomic(target, lambda temporary: torch.save(data | kwargs, temporary))
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_atomic(
            Path(self.save_dir) / POINTER,
            lambda temporary: temporary.write_text(last_filename_basename),
        )

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from; raises as `find_last_checkpoint`."""
        return find_last_checkpoint(Path(self.save_dir)) is not None

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from, or ""; raises as `find_last_checkpoint`."""
        return str(find_last_checkpoint(Path(self.save_dir)) or "")

    def load(self, path: str, checkpointables: Sequence[str] | None = None) -> dict[str, Any]:
        """As upstream, but from files of any format that `read_file` knows.

        Raises:
            ZssError: missing or unreadable file; weights of another model or configuration; no
                state of the ``checkpointables``, without which nothing can be resumed; none are
                named, and the model's CLIP has none of its own.
        """
        if not path:
            if getattr(self.model, "clip_from_weights", False):
                raise ZssError(
                    "MODEL.CLIP.FROM_WEIGHTS is True and no weights are given; give MODEL.WEIGHTS "
                    "or --weights, or set it False"
                )
            return super().load("", checkpointables=[])
        path = weights_of(str(path))
        self._loading = str(path)
        checkpoint = super().load(str(self._local_file(self._loading)), checkpointables=[])
        self._restore(
            checkpoint, self.checkpointables if checkpointables is None else checkpointables
        )
        return checkpoint

    def load_to_evaluate(self, weights: str, resume: bool) -> tuple[str, int | None]:
        """Load what ``--eval-only`` is about: ``MODEL.WEIGHTS``, or the last checkpoint.

        Args:
            weights: ``MODEL.WEIGHTS``.
            resume: the last checkpoint of the folder is wanted.

        Returns:
            the file, "" for none, and the iterations it was trained for, None if unknown.

        Raises:
            ZssError: as `load`; there is no checkpoint; it was trained in another
                ``ZERO_SHOT.SETTING`` than its scores would be recorded under.
        """
        last = self.get_checkpoint_file() if resume else ""
        trained = any(parameter.requires_grad for parameter in self.model.parameters())
        if resume and not last and not weights and trained:
            raise ZssError(
                f"--resume: {self.save_dir} holds no checkpoint; give its OUTPUT_DIR, or a file as "
                "MODEL.WEIGHTS without --resume"
            )
        if resume and not last and weights:
            logger.warning(
                "--resume: %s holds no checkpoint, MODEL.WEIGHTS %s is evaluated",
                *(self.save_dir, weights),
            )
        if last and weights:
            logger.warning(
                "--resume: %s is evaluated and MODEL.WEIGHTS %s is not; without --resume it is the "
                "other way round",
                *(last, weights),
            )
        path = last or weights
        if not path and trained:
            logger.warning("MODEL.WEIGHTS is empty: evaluating a model without trained weights")
        iteration = iteration_of(self.load(path, checkpointables=[]))
        if hasattr(self.model, "require_setting"):
            self.model.require_setting()
        return path, None if iteration is None else iteration + 1

    def _local_file(self, path: str) -> Path:
        """Where a path or an address is on this machine, downloaded if need be."""
        scheme, separator, _ = path.partition("://")
        if not separator:
            if not os.path.exists(path):  # False for impossible names too
                raise ZssError(
                    f"{_KEY} {path[-200:]} does not exist; check MODEL.WEIGHTS or --weights"
                )
            require_file(Path(path), _KEY)
            return Path(path)
        wish = Wish(f"{_KEY} {path[-120:]}", "give the path of a file as MODEL.WEIGHTS")
        if scheme in SCHEMES:
            return url_file(path, wish)
        try:
            # Schemes that an installed Detectron2 brings, such as detectron2://.
            local = Path(self.path_manager.get_local_path(path))
        except Exception as error:  # of whatever handles them
            raise wish.error(f"is unavailable ({type(error).__name__})") from None
        if not local.is_file():
            raise wish.error(f"nothing here fetches {scheme}://, but {', '.join(SCHEMES)}")
        return local

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Tensors and plain values only: no code of a file runs, whatever its suffix."""
        path = Path(filename)
        folder = ModelFolder.at(path) if path.name == WEIGHTS else None
        about = folder.require_whole() if folder else {}
        try:
            content = read_file(path, _KEY).entries
        except ZssError as error:
            raise self._with_an_older_one(error, path) from None
        if folder:
            content = {"model": content, **{x: about[x] for x in _SAID if x in about}}
        state = tensors_of(content, self._loading, _KEY)
        rest = content if isinstance(content.get("model"), Mapping) else {}
        self._made_by = made_by(content)
        return {**rest, "model": state}

    def _with_an_older_one(self, error: ZssError, damaged: Path) -> ZssError:
        """Add what else there is, if a checkpoint of this very run cannot be read."""
        folder = Path(self.save_dir)
        if not self.save_dir or damaged.resolve().parent != folder.resolve():
            return error
        older = newest_readable(folder)
        if older is None:
            return error
        return ZssError(
            f"{error}; or go on from {older.name}, the newest there that can be read: "
            f"{command_to_choose(older)}"
        )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        own = self.model.state_dict()
        state = checkpoint["model"] = without_prefix(checkpoint["model"], own)
        self._adopt(checkpoint)
        require_usable(state, own, self._loading, _KEY)
        incompatible = super()._load_model(checkpoint)
        shapes = [
            f"{key} is {tuple(found)} instead of {tuple(wanted)}"
            for key, found, wanted in incompatible.incorrect_shapes
        ]
        wrong_shape = {key for key, *_ in incompatible.incorrect_shapes}
        missing = [key for key in incompatible.missing_keys if key not in wrong_shape]
        for problem, keys in (
            ("other shapes", shapes),
            ("missing", missing),
            ("unknown", incompatible.unexpected_keys),
        ):
            if keys:
                raise self._misfit(f"{len(keys)} weights with {problem}, such as {keys[0][:80]}")
        return incompatible

    def _misfit(self, what: str) -> ZssError:
        whose, remedy = "", "give the config it was trained with"
        if self._made_by:
            whose = f"{self._made_by}, "
            remedy = "give a checkpoint of this project, or weights named as this model's"
        model = type(self.model).__name__
        problem = f"{whose}belongs to another model or configuration than {model}: {what}; {remedy}"
        return weights_error(self._loading, problem, _KEY)

    def _adopt(self, checkpoint: dict[str, Any]) -> None:
        if not hasattr(self.model, IDENTITY):
            return
        identity = checkpoint.pop(IDENTITY, None)
        if identity is None:
            logger.warning(
                "Checkpoint %s does not say which classes, sentences and CLIP its weights stand "
                "for; make sure that the config is that of its training",
                self._loading,
            )
            identity = {}
        try:
            self.model.adopt(identity, checkpoint["model"])
        except ZssError as error:
            raise ZssError(f"{self._loading}: {error}") from None
        except _STATE_ERRORS as error:
            raise weights_error(
                self._loading,
                f"what it says of its classes and CLIP is damaged ({type(error).__name__}); give "
                "another checkpoint",
                _KEY,
            ) from None

    def _restore(self, checkpoint: dict[str, Any], wanted: Sequence[str]) -> None:
        """Give ``wanted`` their state, which is taken out of the checkpoint."""
        there = [key for key in wanted if key in checkpoint]
        if wanted and not there:
            raise weights_error(
                self._loading,
                f"holds weights alone and no training state ({', '.join(wanted)}), so it cannot be "
                "resumed; start a run from it: MODEL.WEIGHTS with another OUTPUT_DIR",
                _KEY,
            )
        for key in wanted:
            if key not in there:
                logger.warning("Checkpoint %s holds no state of %s", self._loading, key)
                continue
            logger.info("Loading %s from %s ...", key, self._loading)
            try:
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
            except ZssError:
                raise
            except _STATE_ERRORS as error:
                reason = " ".join(str(error).split())[:80]
                raise weights_error(
                    self._loading,
                    f"its state of {key} does not fit this run ({type(error).__name__}: {reason}); "
                    "give the config it was trained with, or another checkpoint",
                    _KEY,
                ) from error


def without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take off what stands in front of all names, such as ``module.``, if that makes them match.

    Args:
        wanted: state of the model.
    """
    bare = dict(state)
    while bare and not wanted.keys() & bare.keys():
        parts = {name: name.partition(".") for name in bare}
        if len({head for head, *_ in parts.values()}) > 1 or not all(
            rest for *_, rest in parts.values()
        ):
            return dict(state)
        bare = {parts[name][2]: value for name, value in bare.items()}
    return bare
