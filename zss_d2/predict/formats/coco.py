"""COCO: all images, and a mask per class and image, in one JSON file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from zss_d2.predict.formats.base import Record
    from zss_d2.predict.words import Words


def write_coco(file: TextIO, words: Words, records: Iterable[Record]) -> None:
    """``category_id`` is the label id; images and annotations are numbered from 1."""
    ids = words.label_ids[: len(words.classes)].tolist()
    categories = [
        {"id": label, "name": wordings[0], "supercategory": ""}
        for label, wordings in zip(ids, words.classes, strict=True)
    ]
    info = {"description": "Labels of an open vocabulary, predicted by zss_d2"}
    file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n')
    file.write('"images": [')
    # Annotations have a list of their own, behind that of the images.
    with TemporaryFile("w+", dir=Path(file.name).parent) as aside:
        annotation_id = 0
        for image_id, record in enumerate(records, 1):
            image = {key: record[key] for key in ("file_name", "width", "height")}
            _add(file, image_id, {"id": image_id, **image})
            for annotation in record["annotations"]:
                annotation_id += 1
                own = {"id": annotation_id, "image_id": image_id}
                _add(aside, annotation_id, own | annotation)
        file.write('],\n"annotations": [')
        aside.seek(0)
        shutil.copyfileobj(aside, file)
    file.write("]}\n")


def _add(file: TextIO, number: int, entry: Record) -> None:
    """Add an entry to a list, whose first has the number 1."""
    file.write(",\n" * (number > 1) + json.dumps(entry))
