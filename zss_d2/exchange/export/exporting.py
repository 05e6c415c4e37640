"""From a loaded model to a checked file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from zss_d2.errors import ZssError
from zss_d2.exchange.export import program as programs
from zss_d2.exchange.export.graph import GraphSettings, SegmentationGraph
from zss_d2.exchange.export.metadata import as_texts, describe
from zss_d2.exchange.export.parity import Parity, Run, compare
from zss_d2.modeling import ZeroShotSegmentor
from zss_d2.predict.predictor import Predictor
from zss_d2.utils.writing import write_atomic

Say = Callable[[str], None]
"""Called with what is being done."""


@dataclass(frozen=True)
class Exported:
    """A model as it is about to be written.

    Attributes:
        predictor: the model and its config, on the CPU.
        names: K class names, or a `Vocabulary`.
        graph, program: what of it is written.
        seen_bias: that is in the graph.
    """

    predictor: Predictor
    names: Sequence[str]
    graph: SegmentationGraph
    program: ExportedProgram
    seen_bias: float

    def parity(self, run: Run, images: Sequence[np.ndarray]) -> Parity:
        """How near a file comes to the model on images (H, W, 3) uint8."""
        model = self.predictor.segmentor
        return compare(run, self.graph, model, self.names, images, self.seen_bias)

    def metadata(self) -> dict[str, Any]:
        return describe(self.predictor, self.graph, self.names, self.seen_bias)


def traced(predictor: Predictor, names: Sequence[str], settings: GraphSettings) -> Exported:
    """The program of a model.

    Raises:
        ZssError: its method has no graph; it has several embeddings of a class where one is to be
            an input; as `programs.trace`.
    """
    model = predictor.segmentor
    text = class_embeddings(model, names, one_per_class=settings.embeddings)
    baked = not settings.embeddings
    seen_bias = model.protocol.seen_bias if baked and settings.resize else 0.0
    seen = torch.tensor([float(name in model.labelled_classes) for name in names])
    graph = SegmentationGraph(
        model,
        settings,
        text if baked else None,
        model.words_per_class(names) if baked else (),
        seen_bias * seen if seen_bias else None,
    ).eval()
    program = programs.trace(graph, text.shape[1])
    return Exported(predictor, names, graph, program, seen_bias)


def class_embeddings(
    model: ZeroShotSegmentor, names: Sequence[str], one_per_class: bool = True
) -> torch.Tensor:
    """Unit-norm embeddings (K, C), float32, as `traced` puts them into the graph.

    Raises:
        ZssError: the method has none; a class has several, and is to have one.
    """
    if type(model).embedded_logits is ZeroShotSegmentor.embedded_logits:
        raise ZssError(
            f"{type(model).__name__} cannot be exported: it implements class_logits instead of "
            "text_embeddings and embedded_logits (docs/adding_a_method.md)"
        )
    sizes = dict(zip(names, model.words_per_class(names), strict=True))
    several = [name for name, number in sizes.items() if number != 1]
    if several and one_per_class:
        raise ZssError(
            f"{several[0]!r} has {sizes[several[0]]} words (MODEL.MASKCLIP.WORDS), whose "
            "embeddings are not one; bake them in, or give the words themselves as --classes"
        )
    with torch.no_grad():
        return model.text_embeddings(names).detach().float().cpu()


def write_embeddings(path: Path, model: ZeroShotSegmentor, names: Sequence[str]) -> None:
    """Write ``classes`` (K,) and ``embeddings`` (K, C) float32 as NumPy's npz.

    Raises:
        ZssError: as `class_embeddings`; the file cannot be written.
    """
    rows = class_embeddings(model, names).numpy()

    def write(file: Path) -> None:
        with open(file, "wb") as stream:
            np.savez(stream, classes=np.array(list(names)), embeddings=rows)

    write_atomic(path, write)


def write_onnx(exported: Exported, path: Path, images: Sequence[np.ndarray], say: Say) -> Parity:
    """Write an ONNX file, after onnxruntime has given with it what the model gives.

    Raises:
        ZssError: it cannot be translated or written, or does not give the same.
    """
    from zss_d2.exchange.export import onnx_file

    say("translating it to ONNX (torch.onnx.export)")
    model = onnx_file.to_onnx(exported.program, exported.graph.settings)
    metadata = exported.metadata()
    metadata |= {"opset": onnx_file.opset(model), "versions": onnx_file.versions()}

    def write(metadata: Mapping[str, Any], file: Path) -> None:
        onnx_file.set_metadata(model, as_texts(metadata))
        file.write_bytes(model.SerializeToString())

    return _write_checked(
        exported, path, images, say, metadata, write, onnx_file.OnnxSession, "onnxruntime"
    )


def write_program(exported: Exported, path: Path, images: Sequence[np.ndarray], say: Say) -> Parity:
    """Write a program of torch.export, after it has given what the model gives.

    Raises:
        ZssError: it cannot be written, or does not give the same.
    """
    metadata = exported.metadata() | {"versions": {"torch": torch.__version__}}

    def write(metadata: Mapping[str, Any], file: Path) -> None:
        with open(file, "wb") as stream:
            programs.save(exported.program, stream, metadata)

    return _write_checked(
        exported, path, images, say, metadata, write, programs.LoadedProgram, "torch.export.load"
    )


def _write_checked(
    exported: Exported,
    path: Path,
    images: Sequence[np.ndarray],
    say: Say,
    metadata: dict[str, Any],
    write: Callable[[Mapping[str, Any], Path], None],
    load: Callable[[Path], Run],
    runtime: str,
) -> Parity:
    """Write beside ``path``, compare, write again with the outcome, and move it there."""
    found: list[Parity] = []

    def work(file: Path) -> None:
        write(metadata, file)
        say(f"comparing it in {runtime} with the model on {2 * len(images)} images")
        try:
            parity = exported.parity(load(file), images)
        except Exception as error:  # of the runtime, which has kinds of its own
            if isinstance(error, ZssError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise ZssError(
                f"{path}: {runtime} cannot run it, so it was not written: {reason}; some models "
                "take one size only, try --size 512"
            ) from error
        parity.require(str(path))
        outcome = {"scores_within": parity.difference, "best_class_equal": parity.agreement}
        write({**metadata, "checked": {**outcome, "pixels": parity.pixels}}, file)
        found.append(parity)

    write_atomic(path, work)
    return found[0]
