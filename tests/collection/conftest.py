"""A predictor that labels by brightness, and the command that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from zss_d2.collection import session
from zss_d2.collection.command import main
from zss_d2.config.defaults import default_config
from zss_d2.errors import ZssError
from zss_d2.predict.options import Options
from zss_d2.predict.result import Prediction
from zss_d2.predict.tiles import TileLabels, TileSource
from zss_d2.predict.words import Words

# Of an image of that value the fake has no labels.
POISON = 13


class FakePredictor:
    """Label of a pixel: its red value modulo the number of words; score: how red it is.

    Attributes:
        groups: red values of the images that went through "the network" together.
    """

    checkpoint = ""

    def __init__(self) -> None:
        self.cfg = default_config()
        self.cfg.MODEL.DEVICE = "cpu"
        self.segmentor = SimpleNamespace(
            identity=lambda: {"templates": ["a photo of a {}."]},
            labelled_classes=("a",),
            parameters=lambda: [torch.zeros(1, requires_grad=True)],
        )
        self.groups: list[list[int]] = []

    def check(self, words: Words, options: Options) -> None:
        if "nonsense" in words.names:
            raise ZssError("CLIP does not know the word 'nonsense'; give another")

    def batch(self, options: Options) -> int:
        return options.batch or 1

    def network_size(self, size: tuple[int, int], options: Options) -> tuple[int, int]:
        return size

    def is_tiled(self, size: tuple[int, int], options: Options) -> bool:
        return bool(options.tile) and max(size) > options.tile

    def label(
        self, images: Iterable[np.ndarray], words: Words, options: Options
    ) -> Iterator[Prediction]:
        images = list(images)
        assert len({image.shape for image in images}) <= 1
        self.groups.append([int(image[0, 0, 0]) for image in images])
        for image in images:
            if (image == POISON).all():
                raise ZssError("the scores hold NaN")
            labels, scores = self._labels(image, words)
            yield Prediction(labels, scores, words, image)

    def label_tiles(
        self, source: TileSource, words: Words, options: Options
    ) -> Iterator[TileLabels]:
        height, width = source.size
        step = options.tile or 64
        for top in range(0, height, step):
            for left in range(0, width, step):
                rows = slice(top, min(top + step, height))
                columns = slice(left, min(left + step, width))
                labels, scores = self._labels(source.read(rows, columns), words)
                valid = source.valid(rows, columns)
                if valid is not None:
                    labels[~valid] = words.nodata_id
                yield TileLabels(rows, columns, labels, scores)

    @staticmethod
    def _labels(image: np.ndarray, words: Words) -> tuple[np.ndarray, np.ndarray]:
        red = image[..., 0]
        labels = (red % len(words.names)).astype(words.dtype)
        return labels, (red / 255).astype(np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    predictor = FakePredictor()
    monkeypatch.setattr(session, "load_model", lambda *_: predictor)
    return predictor


@pytest.fixture
def predict(fake: FakePredictor, tmp_path: Path) -> Callable[..., int]:
    """``predict(*arguments)``: exit status of the command with words a, b and c, into ``out``."""

    def call(*arguments: object) -> int:
        words = () if {"--classes", "--classes-file"} & set(arguments) else ("--classes", *"abc")
        output = () if "--output" in arguments else ("--output", tmp_path / "out")
        given = [*arguments, "--config-file", "fake.yaml", *words, *output]
        return main(list(map(str, given)))

    return call


def save_image(path: Path, value: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    """Write an image of one colour, ``size`` (width, height) in px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of all files but the manifest, which tells times, and hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name != "predict.json" and not path.name.startswith(".")
    }
