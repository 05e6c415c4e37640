"""Masks as train ids, whatever they hold."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from zss_d2.data.files.encoding import MaskEncoding, read_labels
from zss_d2.errors import ZssError

PACKAGE = ROOT / "zss_d2"
VALUES = np.array([[10, 20, 0], [20, 10, 10]])


@pytest.fixture
def mask(tmp_path):
    def save(values: np.ndarray):
        path = tmp_path / "mask.png"
        Image.fromarray(values).save(path)
        return path

    return save


@pytest.mark.parametrize("stored", [np.uint8, np.uint16])
@pytest.mark.parametrize(("void", "dtype"), [(255, np.uint8), (65535, np.uint16)])
def test_raw_values_become_train_ids_of_the_smallest_type(mask, stored, void, dtype):
    encoding = MaskEncoding(2, void, {10: 0, 20: 1, 0: void})
    labels = encoding.read(mask(VALUES.astype(stored)))
    assert labels.dtype == dtype
    assert labels.tolist() == [[0, 1, void], [1, 0, 0]]
    assert encoding.values_of({0, 1}) == {10, 20}


@pytest.mark.parametrize(
    ("encoding", "values", "expected"),
    [
        (MaskEncoding(2, 255), [[0, 1], [9, 9]], "value 9 (2 pixels) outside 0..1 and not the ig"),
        (MaskEncoding(2, 255, {0: 0, 1: 1}), [[0, 9]], "value 9 (1 pixels) without a train id"),
        (MaskEncoding(2, 255, {0: 0, 1: 1}), [[0, 900]], "value 900 (1 pixels) without a train"),
        (MaskEncoding(2, 255, {0: 0, 700: 1}), [[7, 700]], "value 7 (1 pixels) without a train id"),
    ],
)
def test_another_value_is_named_with_the_file_and_the_remedy(mask, encoding, values, expected):
    path = mask(np.array(values, np.uint16))
    with pytest.raises(ZssError, match=re.escape(f"{path}: {expected}")) as caught:
        encoding.read(path)
    assert str(caught.value).endswith("; correct the mask")


def test_data_sets_that_others_have_registered_hold_train_ids(mask):
    class Metadata(SimpleNamespace):
        get = SimpleNamespace.__getattribute__

    metadata = Metadata(stuff_classes=["a", "b"], ignore_label=255, mask_encoding=None)
    values = np.array([[0, 1, 255]], np.uint8)
    assert np.array_equal(read_labels(mask(values), metadata), values)


def test_nothing_else_reads_ground_truth_as_it_is_stored():
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bread_mask\b", path.read_text())
    }
    assert readers == {
        *("data/files/images.py", "data/files/encoding.py"),
        "data/pipeline/train_images.py",  # remembers what masks hold
        "data/prepare/convert.py",  # of originals
        "data/sets/context.py",
        "data/pipeline/written_labels.py",  # labels that a model wrote
        *("evaluation/predictions.py", "collection/sheet.py"),  # of predictions
    }
