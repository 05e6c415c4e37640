"""A `SegmentationGraph` as a program of torch.export: what both formats are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from zss_d2.errors import ZssError
from zss_d2.exchange.export.graph import SegmentationGraph

# The file in a program's that holds what it says of itself.
METADATA_FILE = "zss_d2.json"
# Images, rows and classes of the example: numbers that stand for nothing else in any model.
_BATCH, _CLASSES = 2, 5
# Side of the example about which, px, where any size is taken.
_ABOUT_PX = 128


def least_size(graph: SegmentationGraph) -> int:
    """Least side of an image, px, where any size is taken."""
    return 2 * graph.model.size_divisibility


def trace(graph: SegmentationGraph, channels: int) -> ExportedProgram:
    """The program of a graph, for batches of any number.

    Args:
        channels: C of the class embeddings.

    Raises:
        ZssError: the model computes with the size of its images, and the settings leave it open; or
            torch.export cannot take it.
    """
    settings, step = graph.settings, graph.model.size_divisibility
    units = max(3, _ABOUT_PX // step)
    size = settings.size or (step * units, step * (units + 2))
    arguments = [torch.zeros(_BATCH, 3, *size)]
    image: dict[int, Any] = {0: Dim("batch")}
    if settings.size is None:
        image |= {2: step * Dim("height", min=2), 3: step * Dim("width", min=2)}
    shapes = [image]
    if settings.embeddings:
        arguments.append(torch.zeros(_CLASSES, channels))
        shapes.append({0: Dim("classes", min=2)})
    if settings.size is None and any(
        getattr(part, "one_size_per_graph", False) for part in graph.modules()
    ):
        raise _one_size_only(graph)
    try:
        with torch.no_grad():
            program = torch.export.export(
                graph, tuple(arguments), dynamic_shapes=tuple(shapes), strict=False
            )
    except Exception as error:  # of several kinds, some of which are no RuntimeError
        if isinstance(error, ZssError):
            raise
        if settings.size is None:
            raise _one_size_only(graph, str(error)) from error
        raise ZssError(
            f"torch.export cannot take {type(graph.model).__name__}: {_first_line(error)}"
        ) from error
    _forget_sources(program)
    return program


def save(program: ExportedProgram, file: IO[bytes], metadata: Mapping[str, Any]) -> None:
    """Write a program, and what it says of itself, without the images that it was traced with."""
    program._example_inputs = None  # its setter takes none in torch 2.6
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})


def _one_size_only(graph: SegmentationGraph, why: str = "") -> ZssError:
    reason = f" ({why.splitlines()[0]})" if why.strip() else ""
    return ZssError(
        f"{type(graph.model).__name__} computes with the size of its images, so its file takes one "
        f"size only{reason}; give --size, such as --size 512"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _forget_sources(program: ExportedProgram) -> None:
    """Leave out in what source file every operation was called."""
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)


class LoadedProgram:
    """A file in torch, called as an `OnnxSession` is."""

    def __init__(self, path: Path):
        texts = {METADATA_FILE: ""}
        with open(path, "rb") as file:
            self._module = torch.export.load(file, extra_files=texts).module()
        self.metadata = json.loads(texts[METADATA_FILE])

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(x) for x in inputs.values()))
        return dict(zip(self.metadata["outputs"], (x.numpy() for x in outputs), strict=True))
