"""Generates a handful of drawn scenes in the layout of VOC 2012, for demonstrations and tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from zss_d2.data.files.listing import is_foreign
from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser, whole
from zss_d2.utils.writing import is_temporary, remove_leftovers, write_atomic

VOID = 255
BORDER_PX = 2


def generate(root: Path, num_train: int = 24, num_val: int = 12, seed: int = 0) -> None:
    """Write JPEGImages, SegmentationClassAug and the lists train_aug and val below ``root``.

    Masks are palette PNGs with VOC's raw values: 0 background, 1..20 classes, 255 object borders.
    The same arguments give the same pixels.

    Raises ZssError if ``root`` holds other images, whose lists would be lost.
    """
    others = [path for path in root.glob("JPEGImages/*") if not _is_ours(path.name)]
    if others:
        raise ZssError(f"{root}: holds other images, such as {others[0].name}; name a new folder")
    remove_leftovers(root, recursive=True)
    for split, (name, count) in enumerate((("train_aug", num_train), ("val", num_val))):
        ids = [f"toy_{name}_{index:04d}" for index in range(count)]
        for index, image_id in enumerate(ids):
            image, mask = draw_scene(np.random.default_rng([seed, split, index]), index)
            picture, palette = Image.fromarray(image), Image.fromarray(mask)
            palette.putpalette(voc_palette())
            write_atomic(root / "JPEGImages" / f"{image_id}.jpg", _save(picture, "JPEG"))
            write_atomic(root / "SegmentationClassAug" / f"{image_id}.png", _save(palette, "PNG"))
        text = "".join(f"{image_id}\n" for image_id in ids)
        write_atomic(
            root / "ImageSets" / "Segmentation" / f"{name}.txt",
            lambda path, text=text: path.write_text(text),
        )


def draw_scene(rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the image (H, W, 3) uint8 and the raw mask (H, W) uint8 of scene ``index``.

    Classes are dealt out by the index so that a few scenes cover all of them: every scene has an
    unseen object, and all but each eighth also one or two seen ones.
    """
    voc = load_benchmark("voc")
    raw_of = {train: raw for raw, train in voc.raw_to_train.items()}
    height, width = int(rng.integers(120, 151)), int(rng.integers(160, 201))
    if index % 4 == 3:
        height, width = width, height
    unseen, seen = voc.unseen_ids, voc.seen_ids
    chosen = [unseen[index % len(unseen)]]
    if index % 8 != 7:
        chosen += [seen[(2 * index + k) % len(seen)] for k in range(2 - index % 2)]

    image = _paint(rng, (height, width), rng.uniform(60, 190, 3), int(rng.integers(4)), 12.0)
    mask = np.zeros((height, width), np.uint8)
    for slot, train_id in enumerate(chosen):
        shape, border = _shape(rng, (height, width), train_id % 3, slot, len(chosen))
        paint = _paint(rng, (height, width), class_colour(train_id), train_id % 4, 6.0)
        image[shape] = paint[shape]
        mask[shape] = raw_of[train_id]
        mask[border] = VOID
    return image, mask


def class_colour(train_id: int) -> np.ndarray:
    """Return the RGB colour (3,), 0..255, that tells a class from its neighbours."""
    hue = (train_id * 0.618034) % 1.0
    wheel = np.abs((hue + np.array([0.0, 2.0, 1.0]) / 3) % 1.0 * 6 - 3) - 1
    return 40 + 190 * np.clip(wheel, 0, 1)


def voc_palette() -> list[int]:
    """Return VOC's colour map, 256 x RGB: the bits of an index, dealt to R, G, B from the top."""
    indices = np.arange(256)
    palette = np.zeros((256, 3), int)
    for level in range(8):
        for channel in range(3):
            bit = (indices >> (3 * level + channel)) & 1
            palette[:, channel] |= bit << (7 - level)
    return palette.ravel().tolist()


def _paint(
    rng: np.random.Generator, size: tuple[int, int], colour: np.ndarray, pattern: int, noise: float
) -> np.ndarray:
    """Return a textured (H, W, 3) uint8 surface: stripes, bars, checks or rings, plus noise."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    period = float(rng.uniform(6, 12))
    phase = (rows, columns, rows + columns, np.hypot(rows - size[0] / 2, columns - size[1] / 2))
    wave = 25 * np.sign(np.sin(phase[pattern] * 2 * np.pi / period))
    surface = colour + wave[..., None] + rng.normal(0, noise, (*size, 3))
    return surface.clip(0, 255).astype(np.uint8)


def _shape(
    rng: np.random.Generator, size: tuple[int, int], kind: int, slot: int, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W) bool masks of an object in its share of the width, and of its border."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    centre = (size[0] * rng.uniform(0.4, 0.6), size[1] * (slot + 0.5) / slots)
    radius = (size[0] * rng.uniform(0.25, 0.4), size[1] / slots * rng.uniform(0.35, 0.48))
    down, right = ((p - c) / r for p, c, r in zip((rows, columns), centre, radius, strict=True))
    distance = (
        np.hypot(down, right),
        np.maximum(np.abs(down), np.abs(right)),
        np.abs(down) + np.abs(right),
    )[kind]
    width = BORDER_PX / min(radius)
    return distance <= 1, np.abs(distance - 1) <= width


def _is_ours(name: str) -> bool:
    return name.startswith("toy_") or is_temporary(name) or is_foreign(name)


def _save(image: Image.Image, kind: str) -> Callable[[Path], None]:
    return lambda path: image.save(path, format=kind)


@data_command
def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="folder to write, as VOC2012 is")
    parser.add_argument(
        "--train", type=whole(1), default=24, help="scenes in train_aug (%(default)s)"
    )
    parser.add_argument("--val", type=whole(1), default=12, help="scenes in val (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="(%(default)s)")
    args = parser.parse_args(argv)
    generate(args.root, args.train, args.val, args.seed)
    print(f"{args.root}: {args.train} training and {args.val} validation scenes")
    return 0
