"""Say whether ADE20K (150 classes) is ready for zss_ade20k150_train and zss_ade20k150_val."""

from __future__ import annotations

from collections.abc import Sequence

from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.originals import examine

SOURCE = (
    "get ADEChallengeData2016.zip, the data of http://sceneparsing.csail.mit.edu and not the full "
    "ADE20K, and unpack or link it as $DETECTRON2_DATASETS/ADEChallengeData2016"
)


@data_command
def run(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    return examine("ade20k150", SOURCE, argv)
