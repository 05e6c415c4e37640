"""What the teacher said, on disk, for runs that show it the same images again and again."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.methods.clip_zss.teacher import Teacher
from zss_d2.utils.writing import write_atomic

_DIGEST_BYTES = 16


class CachedTeacher(nn.Module):
    """Asks the teacher about images it has not met before, and remembers the answers.

    An image is known by its normalised pixels, so neither names nor the order of images matter, and
    a flipped image is another one. Answers of other weights or settings are kept apart. They are
    stored in half precision, and rounded to it in the first pass as well, so that a run does not
    depend on what was stored before it.
    """

    def __init__(self, teacher: Teacher, folder: Path):
        """
        Args:
            folder: created; runs and processes may share it. An image takes 2 (1 + N) C bytes there
                for N dense tokens of C channels.
        """
        super().__init__()
        self.teacher = teacher
        self.folder = folder / _digest(teacher.description.encode(), *_weights(teacher))

    def forward(self, images: Tensor) -> ImageFeatures:
        """As `Teacher.forward`."""
        paths = [self._path(image) for image in images.cpu()]
        answers = [_read(path) for path in paths]
        new = [index for index, answer in enumerate(answers) if answer is None]
        if new:
            told = self.teacher(images[new])
            for index, cls, dense in zip(new, told.cls, told.dense, strict=True):
                answers[index] = {"cls": _stored(cls), "dense": _stored(dense)}
                _write(paths[index], answers[index])
        cls, dense = (
            torch.stack([answer[name] for answer in answers]).to(images)
            for name in ("cls", "dense")
        )
        return ImageFeatures(cls, dense)

    def _path(self, image: Tensor) -> Path:
        name = _digest(repr(tuple(image.shape)).encode(), _bytes(image))
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


def _stored(tokens: Tensor) -> Tensor:
    return tokens.half().cpu().contiguous()


def _read(path: Path) -> dict[str, Tensor] | None:
    """None if there is no such file, or one that cannot be read and will be replaced."""
    try:
        return load_file(path)
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        logging.getLogger(__name__).warning("%s is damaged (%s); made anew", path, error)
        return None


def _write(path: Path, answer: dict[str, Tensor]) -> None:
    write_atomic(path, lambda temporary: save_file(answer, temporary))


def _weights(teacher: Teacher) -> list[bytes]:
    return [_bytes(value) for value in teacher.tower.module.state_dict().values()]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
