"""Every method can be taken as one graph of tensors, by `torch.export`."""

from __future__ import annotations

import io

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.all_methods import METHODS, WITH_VARIANTS
from zss_d2.modeling.inference import FixedClasses

NAMES = ("dog", "zebra", "sky")


def exportable(make_cfg, method: str, names: tuple[str, ...] | None = None) -> FixedClasses:
    model = build_model(make_cfg(*WITH_VARIANTS[method])).eval()
    return FixedClasses(model, names or model.classes)


# ClearCLIP and NACLIP are parts of these.
@pytest.mark.parametrize("method", [*METHODS, "SCLIP", "ResCLIP", "CLIP-Surgery", "GEM"])
def test_the_exported_graph_gives_the_logits_of_the_model(make_cfg, method):
    module = exportable(make_cfg, method)
    size = (64, 112)  # leaves the windows of route attention padded
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        module(images)  # the class embeddings are cached from here on
        program = torch.export.export(module, (images,))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        graph = torch.export.load(file).module()
        others = torch.randn(2, 3, *size)
        torch.testing.assert_close(graph(others), module(others))
    assert graph(others).shape[:2] == (2, len(module.class_names))


@pytest.mark.parametrize("method", ["LDVC", "CLIPZSS"])
def test_names_that_the_data_set_lacks_are_exported_too(make_cfg, method):
    module = exportable(make_cfg, method, NAMES)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = module(images)
        graph = torch.export.export(module, (images,)).module()
        torch.testing.assert_close(graph(images), expected)
    assert expected.shape[1] == len(NAMES)
