"""Tensors of a TorchScript archive, such as OpenAI's CLIP files, without running its code.

``torch.jit.load`` runs the ``__setstate__`` of every module in the archive, which may write files.
An archive is a zip file of a pickle, ``data.pkl``, whose objects are the modules, and of the bytes
of their tensors; the pickle is read here with nothing but tensors and inert objects in it.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class _Module:
    """Stands for whatever class an archive names: it keeps its attributes and does nothing."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    """Reads ``data.pkl`` of an archive."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        """
        Args:
            root: folder of the archive that everything lies in, with the slash.
        """
        super().__init__(archive.open(f"{root}data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Callable[..., Any] | torch.dtype:
        if module.split(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":  # build_intlist and others: a typed list
            return _same
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is no part of a list of tensors")

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """The numbers of a storage, ("storage", type, name, device, count), as (count,)."""
        _, dtype, name, _, count = pid
        numbers = bytearray(self._archive.read(f"{self._root}data/{name}"))
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(numbers, dtype=dtype, count=count)


def _tensor(numbers: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return numbers.as_strided(size, stride, offset).clone()


def _same(value: Any) -> Any:
    return value


def read_archive(path: str) -> dict[str, Tensor]:
    """Parameters and buffers of the module in an archive, by name.

    Raises:
        pickle.UnpicklingError: it holds something else than modules and tensors.
        Exception: of many kinds, if it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        module = _Unpickler(archive, pickled.removesuffix("data.pkl")).load()
    return dict(_tensors(module, ""))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module) and isinstance(value.attributes, dict):
        for key, inside in value.attributes.items():
            yield from _tensors(inside, f"{name}.{key}" if name else key)
