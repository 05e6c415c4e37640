"""What a file of weights contains, read without running code from it, and named if it is none."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from zss_d2.errors import ZssError

# How files begin that people take for weights, and what to do about them.
_LOOKALIKES = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"<", "a web page; download the file itself, logged in where the site asks for it"),
    (b"{", "JSON; give the file of weights that lies beside it"),
    (b"\x89HDF", "TensorFlow's; give pytorch_model.bin or model.safetensors"),
    (b"\x1f\x8b", "compressed; unpack it and give what is inside"),
    (b"GGUF", "GGUF; give pytorch_model.bin or model.safetensors"),
)
_LONGEST = 300
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


def weights_error(path: Path, problem: str) -> ZssError:
    """What is wrong with a file of CLIP weights, in at most 300 characters."""
    key, shown = "MODEL.CLIP.PRETRAINED", str(path)
    room = max(40, _LONGEST - len(f"{key} : {problem}"))
    if len(shown) > room:
        shown = f"...{shown[3 - room :]}"
    return ZssError(f"{key} {shown}: {problem}")


def read_file(path: Path) -> Mapping[str, Any] | torch.jit.ScriptModule:
    """Read what safetensors, ``torch.save`` or ``torch.jit.save`` wrote, by content, not by suffix.

    Pickles are read as data only. A TorchScript archive is opened with `torch.jit.load`.

    Raises:
        ZssError: a folder, or something else that is no such file, or half of one.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:3]
        found = f"one of its files, {', '.join(inside)}" if inside else "a file of weights"
        raise weights_error(path, f"a folder; name {found}")
    start = path.open("rb").read(64)
    if not start:
        raise weights_error(path, "an empty file; fetch it again")
    if start[8:9] == b"{":  # behind the length of the header
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(b"\x80"):
        return _read_pickle(path)
    if what := lookalike(path):
        raise weights_error(path, f"no weights but {what}")
    raise weights_error(path, f"no weights, it begins with {start[:12]!r}; fetch it again")


def lookalike(path: Path) -> str:
    """What a file is that people take for weights, and what to do about it; "" for others."""
    start = path.open("rb").read(64).lstrip()
    return next((what for magic, what in _LOOKALIKES if start.startswith(magic)), "")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except SafetensorError:
        raise weights_error(path, "damaged or unfinished; fetch the file again") from None


def _read_zip(path: Path) -> Mapping[str, Any] | torch.jit.ScriptModule:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise weights_error(path, "damaged or unfinished; fetch the file again") from None
    if any(name.endswith("constants.pkl") for name in names):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's own, of TorchScript's end
                return torch.jit.load(path, map_location="cpu")
        except RuntimeError:
            raise weights_error(path, "a damaged TorchScript archive; fetch it again") from None
    if any(name.endswith("data.pkl") for name in names):
        return _read_pickle(path)
    raise weights_error(path, f"no weights but a zip archive of {names[0] if names else 'nothing'}")


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise weights_error(path, "damaged or unfinished; fetch the file again") from None
        raise weights_error(
            path,
            f"holds Python code to run, {code[1][:60]}, besides tensors; where it was made, save "
            "the tensors alone: torch.save(model.state_dict(), ...)",
        ) from None
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise weights_error(path, f"holds a {kind}, no tensors by name; save model.state_dict()")
    return content
