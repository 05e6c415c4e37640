"""What ``zss predict`` leaves in a folder of results, by which others know it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from zss_d2.errors import ZssError

MANIFEST, RECORDS = "predict.json", "predict.jsonl"
KIND = "zss predict"


def holds_results(folder: str | Path) -> bool:
    """Whether a folder is one that ``zss predict`` has written to."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            return json.dumps({"kind": KIND})[1:-1].encode() in file.read(64)
    except OSError:
        return False


def require_ground_truth(name: str, folders: Iterable[Path], said: bool) -> None:
    """Raise `ZssError` where what a data set is to be tested on was labelled by a model.

    Args:
        name: of the data set.
        folders: of its masks.
        said: whether its description says ``pseudo_labels``.
    """
    if said:
        raise ZssError(
            f"{name}: its description says that its masks are pseudo labels; a test on them would "
            "compare a model with a model; name a set with ground truth as DATASETS.TEST"
        )
    for folder in folders:
        for place in (folder, *folder.resolve().parents):
            if holds_results(place):
                raise ZssError(
                    f"{name}: its masks, in {folder}, are labels that zss predict has written "
                    f"({place / MANIFEST}); a test on them would compare a model with a model; "
                    "name a set with ground truth as DATASETS.TEST"
                )
