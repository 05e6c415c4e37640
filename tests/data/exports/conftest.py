"""A folder of pictures, and ``zss masks`` as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zss_d2.data.exports import command
from zss_d2.data.files.images import read_mask


class Folder:
    """A folder with ``photos`` and what ``zss masks`` makes of exports."""

    def __init__(self, root: Path, capsys):
        self.root, self._capsys = root, capsys
        self.photos, self.output = root / "photos", root / "out"

    def photo(self, name: str, width: int, height: int, orientation: int = 1) -> Path:
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.zeros((height, width, 3), np.uint8))
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, **({"exif": exif} if orientation > 1 else {}))
        return path

    def run(self, *arguments: object) -> tuple[int, list[str], list[str]]:
        """(exit status, lines of the output, lines of errors without the progress bar)."""
        self._capsys.readouterr()
        options = ["--images", self.photos, "--output", self.output, "--workers", "1"]
        status = command.main([str(x) for x in (*arguments, *options)])
        out, err = self._capsys.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        return status, out.splitlines(), errors

    def masks(self) -> dict[str, np.ndarray]:
        return {path.stem: read_mask(path) for path in (self.output / "masks").glob("*.png")}

    def description(self) -> dict:
        (path,) = self.output.glob("*.yaml")
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    def listed(self, split: str) -> list[str]:
        return (self.output / f"{split}.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def folder(tmp_path, capsys) -> Folder:
    return Folder(tmp_path, capsys)


@pytest.fixture
def write(tmp_path) -> Callable[[str, str], Path]:
    def call(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return call
