"""What a file of weights contains, read without running code from it, and named if it is none.

The one reader for CLIP's weights, those of a student, and checkpoints.
"""

from __future__ import annotations

import argparse
import logging
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zss_d2.clip.weights.torchscript import read_archive
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

# What training code keeps beside the weights, and making which runs nothing: arguments (timm), and
# single numbers of numpy (MMSegmentation), whose maker two versions of numpy call by two names.
# Not for the time of one call only, as that would change what other threads may load meanwhile.
_NUMBER, _ = np.float64(0).__reduce__()
torch.serialization.add_safe_globals(
    [
        argparse.Namespace,
        np.dtype,
        *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd"),
        *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
)

# How files begin that people take for weights, and what to do about them.
_LOOKALIKES = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"<", "a web page; download the file itself, logged in where the site asks for it"),
    (b"{", "JSON; give the file of weights that lies beside it"),
    (b"\x89HDF", "TensorFlow's; give pytorch_model.bin or model.safetensors"),
    (b"\x1f\x8b", "compressed; unpack it and give what is inside"),
    (b"GGUF", "GGUF; give pytorch_model.bin or model.safetensors"),
    (b"\x93NUMPY", "one NumPy array; give a file of all weights by name"),
)
# What a file of torch.save that is no zip archive begins with.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAVE = "save the tensors alone where it was made: torch.save(model.state_dict(), ...)"
_LONGEST = 300
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
# Where training code puts the weights within a file.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
CLIP_KEY = "MODEL.CLIP.PRETRAINED"


class FileContent(NamedTuple):
    """What lies in a file of weights, by name."""

    entries: Mapping[str, Any]
    kind: str  # of file, in words


def weights_error(path: str | Path, problem: str, key: str = CLIP_KEY) -> ZssError:
    """What is wrong with a file of weights, in at most 300 characters.

    Args:
        key: what named the file.
    """
    shown = str(path)
    room = max(40, _LONGEST - len(f"{key} : {problem}"))
    if len(shown) > room:
        shown = f"...{shown[3 - room :]}"
    return ZssError(f"{key} {shown}: {problem}")


def read_file(path: Path, key: str = CLIP_KEY) -> FileContent:
    """Read what safetensors, ``torch.save`` or ``torch.jit.save`` wrote, by content, not by suffix.

    Pickles are read as data only, and of a TorchScript archive the tensors.

    Args:
        key: what named the file, for messages.

    Raises:
        ZssError: a folder, or something else that is no such file, or half of one.
    """

    def wrong(problem: str) -> ZssError:
        return weights_error(path, problem, key)

    require_file(path, key)
    try:
        start = _start_of(path)
    except OSError as error:
        reason = error.strerror or error
        raise wrong(f"cannot be opened ({reason}); give a file of weights") from None
    if not start:
        raise wrong("an empty file; fetch it again")
    if start[8:9] == b"{":  # behind the length of the header
        return FileContent(_read_safetensors(path, wrong), "safetensors")
    if start.startswith(b"PK"):
        return _read_zip(path, wrong)
    if start.startswith(_LEGACY):
        return FileContent(_read_pickle(path, wrong), "state dict")
    if start.startswith(b"\x80"):
        raise wrong(f"a pickle that torch.save has not written, which may hold code; {_SAVE}")
    if what := _lookalike(start):
        raise wrong(f"no weights but {what}")
    raise wrong(f"no weights, it begins with {start[:12]!r}; fetch it again")


def require_file(path: Path, key: str) -> None:
    """Raise `ZssError` for a folder, which names the files in it, and for what is no file at all.

    Args:
        key: what named it.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:3]
        found = f"one of its files, {', '.join(inside)}" if inside else "a file of weights"
        raise weights_error(path, f"a folder; name {found}", key)
    if not path.is_file():
        raise weights_error(path, "no file; give a file of weights", key)


def lookalike(path: Path) -> str:
    """What a file is that people take for weights, and what to do about it; "" for others."""
    return _lookalike(_start_of(path))


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _lookalike(start: bytes) -> str:
    start = start.lstrip()
    return next((what for magic, what in _LOOKALIKES if start.startswith(magic)), "")


def _read_safetensors(path: Path, wrong: Callable[[str], ZssError]) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except SafetensorError:
        raise wrong("damaged or unfinished; fetch the file again") from None


def _read_zip(path: Path, wrong: Callable[[str], ZssError]) -> FileContent:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise wrong("damaged or unfinished; fetch the file again") from None
    if not any(name.endswith("data.pkl") for name in names):
        raise wrong(f"no weights but a zip archive of {names[0][:60] if names else 'nothing'}")
    if not any(name.endswith("constants.pkl") for name in names):
        return FileContent(_read_pickle(path, wrong), "state dict")
    try:
        return FileContent(read_archive(str(path)), "TorchScript archive")
    except Exception as error:  # as of a pickle
        raise _unreadable(error, wrong, "a damaged TorchScript archive; fetch it again") from None


def _read_pickle(path: Path, wrong: Callable[[str], ZssError]) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise _unreadable(error, wrong, "damaged or unfinished; fetch the file again") from None
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise wrong(f"holds a {kind}, no tensors by name; save model.state_dict()")
    return content


def _unreadable(error: Exception, wrong: Callable[[str], ZssError], otherwise: str) -> ZssError:
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code is None:
        return wrong(otherwise)
    return wrong(f"holds Python code to run, {code[1][:60]}, besides tensors; {_SAVE}")


def unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights in a dictionary of a training run, which may hold others."""
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return content if inner is None else unwrap(inner)


def made_by(content: Mapping[str, Any]) -> str:
    """Whose checkpoint it is, in words, if its keys tell; "" otherwise."""
    if "pytorch-lightning_version" in content:
        return "PyTorch Lightning's"
    if "state_dict" in content and ("meta" in content or "message_hub" in content):
        return "MMSegmentation's"
    return ""


def tensors_of(content: Mapping[str, Any], path: str | Path, key: str) -> dict[str, Tensor]:
    """The weights in what `read_file` has read; what else lies among them is left out, and said.

    Raises:
        ZssError: there are none.
    """
    entries = unwrap(content)
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, entries))[:80]
        what = f"a dict of {keys}, no tensors by name" if keys else "nothing"
        raise weights_error(path, f"holds {what}; save model.state_dict()", key)
    if others := [str(name) for name in entries if str(name) not in state]:
        logger.warning(
            "%s %s: %d entries that are no tensors are left out%s",
            *(key, path, len(others), first_of(others)),
        )
    return state


def require_usable(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    path: str | Path,
    key: str,
    may_be_nan: Collection[str] = (),
) -> None:
    """Raise `ZssError` for weights that would load and mean nothing: NaN, or other kinds of number.

    Args:
        state: of the file; other floating-point types than the model's are converted later.
        wanted: of the model.
        may_be_nan: names of tensors that need not be filled.
    """
    both = [name for name in wanted if name in state]
    for name in both:
        found, own = state[name].dtype, wanted[name].dtype
        if found.is_floating_point != own.is_floating_point:
            raise weights_error(
                path,
                f"{name[:80]} holds {_short(found)} numbers, {_short(own)} is needed; give the "
                "weights as they were before they were quantised or converted",
                key,
            )
    bad = [name for name in both if name not in may_be_nan and not _is_finite(state[name])]
    if bad:
        raise weights_error(
            path,
            f"{len(bad)} of {len(both)} tensors hold NaN or infinity{first_of(bad)}; give weights "
            "from before a training went wrong, or fetch the file again",
            key,
        )
    converted = sorted({_short(state[n].dtype) for n in both if state[n].dtype != wanted[n].dtype})
    if converted:
        logger.info("%s %s: converted from %s", key, path, ", ".join(converted))


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    values = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(values.isfinite().all())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def first_of(names: Collection[str]) -> str:
    """``, first 'name'``, or "" for none."""
    first = next(iter(names), None)
    return "" if first is None else f", first {first[:50]!r}"
