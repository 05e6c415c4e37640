"""Say whether Cityscapes (19 classes) is ready for zss_cityscapes_train and zss_cityscapes_val."""

from __future__ import annotations

from collections.abc import Sequence

from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.originals import examine

SOURCE = (
    "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
    "https://www.cityscapes-dataset.com, after registration, and unpack or link both in "
    "$DETECTRON2_DATASETS/cityscapes, which then holds leftImg8bit and gtFine"
)


@data_command
def run(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    return examine("cityscapes", SOURCE, argv)
