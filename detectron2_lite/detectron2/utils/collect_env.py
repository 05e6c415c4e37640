"""A table of what is installed, for logs and bug reports."""

from __future__ import annotations

import importlib
import sys

import torch
from tabulate import tabulate

_LIBRARIES = ("numpy", "detectron2", "torch", "torchvision", "fvcore", "iopath", "PIL", "cv2")


def _version(name: str) -> str:
    """Version and place of a package."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return "not found"
    return f"{getattr(module, '__version__', 'unknown version')} @{module.__path__[0]}"


def collect_env_info() -> str:
    """The table, and how torch was built."""
    rows = [("sys.platform", sys.platform), ("Python", sys.version.replace("\n", ""))]
    rows += [(name, _version(name)) for name in _LIBRARIES]
    rows += [("CUDA of torch", torch.version.cuda), ("GPUs", torch.cuda.device_count())]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        rows += [(f"GPU {index}", f"{gpu.name} (arch={gpu.major}.{gpu.minor})")]
    return tabulate(rows) + "\n" + torch.__config__.show()


if __name__ == "__main__":
    print(collect_env_info())
