"""Folders to share a model in: what lies in them, and how one is told from other folders.

``config.yaml`` names every key, as that of a run; ``model.safetensors`` has the weights that
predictions need; ``zss_model.json`` says what these stand for (classes, sentences, CLIP);
``README.md`` is the model card. `zss_d2.predict.pretrained` writes them. Nothing in a folder is
run: yaml and JSON are read as data, and safetensors hold none but tensors.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zss_d2.errors import ZssError

CONFIG, WEIGHTS, ABOUT, CARD = "config.yaml", "model.safetensors", "zss_model.json", "README.md"
# Of the format of ABOUT; a folder of a later one is refused.
FORMAT = 1
_NEEDED = {"format": int, "identity": dict, "weights_sha256": str}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelFolder:
    """A folder that `save_pretrained` has written.

    Args:
        path: of the folder.
    """

    path: Path

    @classmethod
    def at(cls, path: Path) -> ModelFolder | None:
        """The one at ``path``, or that ``path`` is a file of; None: neither."""
        folder = path if path.is_dir() else path.parent
        return cls(folder) if (folder / ABOUT).is_file() else None

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    def about(self) -> dict[str, Any]:
        """Content of ``zss_model.json``.

        Raises:
            ZssError: it is damaged, or of a later version of this project.
        """
        path = self.path / ABOUT
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ZssError(f"{path} cannot be read ({type(error).__name__}); {_AGAIN}") from None
        for key, kind in _NEEDED.items():
            value = content.get(key) if isinstance(content, Mapping) else None
            if not isinstance(value, kind):
                raise ZssError(f"{path}: {key} is {reprlib.repr(value)}; {_AGAIN}")
        if content["format"] > FORMAT:
            raise ZssError(
                f"{path} is of format {content['format']}, this version reads {FORMAT}; update "
                "zss_d2"
            )
        return content

    def require_whole(self) -> dict[str, Any]:
        """`about`, after a look at whether the weights are those that it speaks of.

        Raises:
            ZssError: as `about`; there are no weights, or others.
        """
        content = self.about()
        if not self.weights.is_file():
            raise ZssError(f"{self.weights} is missing; {_AGAIN}")
        if sha256_of(self.weights) != content["weights_sha256"]:
            raise ZssError(
                f"{self.weights} is not the file that {ABOUT} beside it speaks of; {_AGAIN}"
            )
        return content


_AGAIN = "fetch the folder again, or write it anew with save_pretrained"


def weights_of(named: str) -> str:
    """The file of weights that a path stands for: that of a model folder, anything else itself."""
    if not named or "://" in named:
        return named
    path = Path(named)
    try:
        folder = ModelFolder.at(path) if path.is_dir() else None
    except OSError:  # an impossible name
        return named
    return str(folder.weights) if folder else named


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
