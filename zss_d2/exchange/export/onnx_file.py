"""ONNX files: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from zss_d2.errors import ZssError
from zss_d2.exchange.export.graph import EMBEDDINGS, IMAGE, LOGITS, GraphSettings

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A file of Protocol Buffers holds no more, bytes.
_LARGEST = 2**31 - 1
# Of torch's exporter: which line of source an operation is from.
_SOURCES = "pkg."


def require_packages() -> None:
    """Raise `ZssError` unless what ONNX files are made and checked with is installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ZssError(
            f"zss export --format onnx needs {missing[0]}, which is not installed; "
            "pip install zss_d2[onnx]"
        )


def versions() -> dict[str, str]:
    """Of the packages that made a file."""
    return {name: version(name) for name in ("torch", *PACKAGES)}


def to_onnx(program: ExportedProgram, settings: GraphSettings) -> onnx.ModelProto:
    """Translate a program by torch's exporter (``dynamo=True``), in the opset that it prefers.

    Raises:
        ZssError: the exporter lacks an operation, or the model is larger than a file may be.
    """
    with _quiet():
        try:
            translated = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(settings.inputs),
                output_names=list(settings.outputs),
                verbose=False,
            )
            model = translated.model_proto
        except Exception as error:  # of many kinds
            raise ZssError(
                f"torch {torch.__version__} cannot translate this model to ONNX: "
                f"{_reason(error)}; try a newer torch and onnxscript, or --format torch"
            ) from error
    if model.ByteSize() > _LARGEST:
        raise ZssError(
            f"the model takes {model.ByteSize() / 2**30:.1f} GiB, an ONNX file at most 2; use "
            "--format torch"
        )
    _forget_sources(model)
    _name_dimensions(model, settings)
    return model


def opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators that a model is written in."""
    return next(x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Write texts into the model, in the place of those it has."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


class OnnxSession:
    """A file in onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int | None = None):
        """
        Args:
            threads: of an operation; None: as many as torch has.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors; what it warns of are its own optimisations
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        names = [x.name for x in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, before, strict=True):
            x.setLevel(level)


def _reason(error: BaseException) -> str:
    """The line of an error of the exporter, which wraps the one that matters, that says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _forget_sources(model: onnx.ModelProto) -> None:
    """Leave out where in the source every operation is from: long, and paths of this machine."""
    parts = [model.graph, *model.functions]
    for part in parts:
        for entry in (part, *part.node, *part.value_info):
            kept = [x for x in entry.metadata_props if not x.key.startswith(_SOURCES)]
            del entry.metadata_props[:]
            entry.metadata_props.extend(kept)
            entry.doc_string = ""


def _name_dimensions(model: onnx.ModelProto, settings: GraphSettings) -> None:
    """Call what is open what it is, instead of ``32*s39``."""
    side = ("rows", "columns") if LOGITS in settings.outputs else ("height", "width")
    names: dict[str, Sequence[str]] = {
        IMAGE: ("batch", "", "height", "width"),
        EMBEDDINGS: ("classes", ""),
    }
    graph = model.graph
    del graph.value_info[:]  # in the names from before, and not needed
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        maps = ("batch", *side) if len(dims) == 3 else ("batch", "classes", *side)
        for dim, name in zip(dims, names.get(value.name, maps), strict=True):
            if dim.dim_param and dim.dim_param.isdigit():  # as some versions write numbers
                dim.dim_value = int(dim.dim_param)
            elif dim.dim_param:
                dim.dim_param = name
