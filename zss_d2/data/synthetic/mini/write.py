"""Writes the mini world to disk in the prepared layout of `zss_d2.data.spec.registry`."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from zss_d2.data.files.images import image_size
from zss_d2.data.files.listing import IMAGE_SUFFIXES, files_by_id, summarise
from zss_d2.data.prepare.outcome import run_parallel
from zss_d2.data.spec.benchmark import Split
from zss_d2.data.spec.locations import split_folders
from zss_d2.data.synthetic.mini.canvas import SIZE
from zss_d2.data.synthetic.mini.scene import WORLD_VERSION, draw_scene
from zss_d2.errors import ZssError
from zss_d2.utils.writing import make_folder, remove_leftovers, write_atomic, write_mask

_STAMP = "world.json"


def scene_checksum(stream: str, index: int, seed: int = 0) -> str:
    """Return the SHA-256 over the pixels, the labels and the caption of a scene, in hex."""
    scene = draw_scene(stream, index, seed)
    digest = hashlib.sha256(scene.image.tobytes())
    digest.update(scene.labels.tobytes())
    digest.update(scene.caption.encode())
    return digest.hexdigest()


def claim_folder(root: Path, seed: int) -> None:
    """Mark ``root`` as this world's, so that scenes of two worlds never mix.

    Raises ZssError if it holds scenes of another seed or version, or of unknown origin.
    """
    make_folder(root)
    stamp = root / _STAMP
    expected = {"version": WORLD_VERSION, "seed": seed}
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = "no record of its origin" if (root / "images").exists() else expected
    except ValueError:
        found = "damaged"
    if found != expected:
        raise ZssError(
            f"{stamp}: the folder holds another world ({found}, not {expected}); name another "
            "--output"
        )
    if not stamp.exists():
        write_atomic(stamp, lambda path: path.write_text(json.dumps(expected) + "\n"))


def write_split(
    split: Split, count: int, root: Path, *, seed: int = 0, workers: int = 1
) -> tuple[str, list[str]]:
    """Write scenes 0..count-1 of a split; complete ones are kept.

    Returns:
        A one-line summary, and notes about anything unusual.
    """
    folders = split_folders(root, split)
    write = functools.partial(_write_scene, split.name, seed, folders)
    for folder in folders:
        remove_leftovers(folder)
    written = sum(run_parallel(write, range(count), workers, split.name, unit="scene"))
    notes = []
    if count != split.expected_images:
        notes.append(
            f"{split.name}: {count} images, the benchmark has {split.expected_images}; scores "
            "cannot be compared with published ones"
        )
    names = {scene_id(split.name, index) for index in range(count)}
    surplus = sorted(files_by_id(folders[0], IMAGE_SUFFIXES).keys() - names) if count else []
    if surplus:
        notes.append(
            f"{folders[0]} also holds {summarise(surplus)}; they are part of the data set too. "
            "To leave them out, give another --output"
        )
    return f"{split.name}: {written} written, {count - written} were there", notes


def scene_id(split: str, index: int) -> str:
    return f"{split}_{index:05d}"


def _write_scene(split: str, seed: int, folders: tuple[Path, Path], index: int) -> bool:
    """Write a scene unless both files are complete; returns whether it was written."""
    image_path, mask_path = (folder / f"{scene_id(split, index)}.png" for folder in folders)
    if image_size(image_path) == (SIZE, SIZE) == image_size(mask_path):
        return False
    scene = draw_scene(split, index, seed)
    write_mask(mask_path, scene.labels)
    write_atomic(image_path, functools.partial(_save_png, scene.image), flush=False)
    return True


def _save_png(image: np.ndarray, path: Path) -> None:
    # Noise hardly compresses; the fastest level takes a third of the time of the usual one.
    Image.fromarray(image).save(path, format="PNG", compress_level=1)
