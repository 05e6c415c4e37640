"""A table of what is installed, for logs and bug reports."""

import sys

import detectron2
import fvcore
import numpy
import torch
from tabulate import tabulate


def collect_env_info() -> str:
    """The table, and how torch was built."""
    rows = [
        (library.__name__, f"{library.__version__} @{library.__path__[0]}")
        for library in (detectron2, torch, numpy, fvcore)
    ]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows += [("Python", sys.version.replace("\n", "")), ("CUDA of torch", torch.version.cuda)]
    return tabulate([*rows, ("GPUs", gpus)]) + "\n" + torch.__config__.show()
