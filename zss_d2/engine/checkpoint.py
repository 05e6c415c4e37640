"""Checkpoints that are written atomically and refuse to load into another model."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from zss_d2.clip.weights_file import lookalike
from zss_d2.data.files import write_atomic
from zss_d2.errors import ZssError

IDENTITY = "identity"


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
        self.logger.info("Saving checkpoint to %s", target)
        write_atomic(target, lambda temporary: torch.save(data | kwargs, temporary))
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_atomic(
            Path(self.save_dir) / "last_checkpoint",
            lambda temporary: temporary.write_text(last_filename_basename),
        )

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As upstream.

        Raises:
            ZssError: missing or unreadable file; weights of another model or configuration.
        """
        if path and "://" not in path and not os.path.isfile(path):
            raise ZssError(f"checkpoint {path} does not exist; check MODEL.WEIGHTS")
        self._loading = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Tensors and plain values only: no code of a file runs, whatever its suffix."""
        try:
            content = torch.load(filename, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
            what = lookalike(Path(filename))
            problem = f"it is {what}" if what else "it is damaged, or no checkpoint of this project"
            raise ZssError(
                f"checkpoint {filename} cannot be read ({type(error).__name__}); {problem}"
            ) from error
        return content if "model" in content else {"model": content}

    def _load_model(self, checkpoint: Any) -> Any:
        self._adopt(checkpoint)
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
                raise ZssError(
                    f"checkpoint {self._loading} belongs to another model or configuration than "
                    f"{type(self.model).__name__}: {len(keys)} weights with {problem}, such as "
                    f"{keys[0]}; give the config it was trained with"
                )
        return incompatible

    def _adopt(self, checkpoint: dict[str, Any]) -> None:
        if not hasattr(self.model, IDENTITY):
            return
        identity = checkpoint.pop(IDENTITY, None)
        if identity is None:
            self.logger.warning(
                "Checkpoint %s does not say which classes, sentences and CLIP its weights stand "
                "for; make sure that the config is that of its training",
                self._loading,
            )
            return
        try:
            self.model.adopt(identity, checkpoint["model"])
        except ZssError as error:
            raise ZssError(f"{self._loading}: {error}") from None
