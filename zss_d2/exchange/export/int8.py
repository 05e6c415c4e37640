"""Dynamic quantisation: weights of a student in 8 bits, activations as they come in 8 bits too."""

from __future__ import annotations

import logging
from pathlib import Path

from zss_d2.exchange.export.onnx_file import set_metadata
from zss_d2.utils.writing import write_atomic


def write_int8(source: Path, path: Path) -> None:
    """Quantise an ONNX file by ``onnxruntime.quantization.quantize_dynamic``.

    Convolutions become ``ConvInteger``. Weights are unsigned: onnxruntime computes with signed ones
    at about half the speed on a CPU. Scales are those of whole tensors, as it knows no others here.

    Raises:
        ZssError: the file cannot be written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def write(file: Path) -> None:
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it advises to do what is done with float files
        try:
            quantize_dynamic(str(source), str(file), weight_type=QuantType.QUInt8)
        finally:
            logging.root.setLevel(level)
        model = onnx.load_model_from_string(file.read_bytes())
        # Those of the float file: what quantising adds is no JSON.
        texts = {x.key: x.value for x in onnx.load(source).metadata_props}
        set_metadata(model, {**texts, "int8": "true"})
        file.write_bytes(model.SerializeToString())

    write_atomic(path, write)
