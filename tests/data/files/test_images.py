"""What pixels of every kind become: photos keep their range, masks their ids, or are refused."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.utils import logger as d2_logger
from PIL import Image

from zss_d2.data.files.images import image_size, read_image, read_mask, read_pair
from zss_d2.data.files.listing import files_by_id
from zss_d2.data.prepare.convert import Job, Pair, is_current
from zss_d2.errors import ZssError

WIDE = np.array([[0, 128, 129, 257], [32768, 40000, 65278, 65535]], np.uint16)
# Of 65535 levels, 257 make one of 255: 128 / 257 rounds down, 129 / 257 up.
NARROW = np.array([[0, 0, 1, 1], [128, 156, 254, 255]], np.uint8)


def error(read, path: Path) -> str:
    with pytest.raises(ZssError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "delete" not in message
    return message


def save(path: Path, array: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def pgm(path: Path, array: np.ndarray, largest: int) -> Path:
    height, width = array.shape
    header = f"P5 {width} {height} {largest}\n".encode()
    path.write_bytes(header + array.astype(">u2").tobytes())
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save(folder / "grey.png", WIDE),
        lambda folder: save(folder / "grey.tif", WIDE),
        lambda folder: save(folder / "big_endian.tif", WIDE.astype(">u2")),
        lambda folder: pgm(folder / "mode_i.pgm", WIDE, 65535),
    ],
    ids=["png", "tiff", "big-endian tiff", "pgm"],
)
def test_16_bit_grey_keeps_its_range(tmp_path, write):
    photo = read_image(write(tmp_path))
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, np.stack([NARROW] * 3, axis=-1))


def test_16_bit_rgb_keeps_its_range(tmp_path):
    rgb = np.stack([WIDE, WIDE // 2, WIDE[::-1]], axis=-1)
    path = tmp_path / "rgb.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    # Pillow takes the upper byte.
    assert np.abs(read_image(path) - rgb / 257).max() < 1


def test_16_bit_grey_is_turned_as_its_exif_data_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", WIDE, exif=exif)
    assert np.array_equal(read_image(path)[..., 0], np.rot90(NARROW, -1))


GREY = np.array([[0, 60, 255], [130, 200, 7]], np.uint8)
COLOURS = np.stack([GREY, GREY[::-1], GREY.T.reshape(2, 3)], axis=-1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", np.where(GREY > 127, 255, 0)),
        ("L", GREY),
        ("LA", GREY),
        ("P", GREY),
        ("RGB", COLOURS),
        ("RGBA", COLOURS),
    ],
)
def test_8_bit_modes_are_read_as_the_colours_they_hold(tmp_path, mode, expected):
    source = Image.fromarray(COLOURS if expected.ndim == 3 else GREY)
    picture = source.convert("L").point(lambda x: 255 * (x > 127), "1") if mode == "1" else source
    path = tmp_path / f"{mode}.png"
    picture.convert(mode).save(path)
    assert Image.open(path).mode == mode
    rgb = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=-1)
    assert np.array_equal(read_image(path), rgb)


def test_cmyk_is_converted(tmp_path):
    colours = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    path = save(tmp_path / "cmyk.jpg", colours, "CMYK", quality=100)
    assert Image.open(path).mode == "CMYK"
    assert np.abs(read_image(path).astype(int) - colours).max() <= 3


def test_transparency_is_dropped_not_blended(tmp_path):
    clear = np.dstack([COLOURS, np.zeros_like(GREY)])
    assert np.array_equal(read_image(save(tmp_path / "rgba.png", clear)), COLOURS)
    path = save(tmp_path / "palette.png", GREY, "P", transparency=130)
    assert np.array_equal(read_image(path)[..., 0], GREY)


@pytest.mark.parametrize(
    ("array", "mode"), [(WIDE.astype(np.int32) - 5, "I"), (WIDE.astype(np.float32), "F")]
)
def test_pixels_of_unknown_range_are_refused(tmp_path, array, mode):
    message = error(read_image, save(tmp_path / "odd.tif", array))
    assert f"mode '{mode}' (TIFF), whose range is unknown; use a copy with 8 bits" in message


def test_a_wide_photo_that_is_nearly_black_is_announced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(d2_logger, "log_first_n", lambda level, text: logging.log(level, text))
    read_image(save(tmp_path / "full.png", WIDE))
    assert not caplog.text
    path = save(tmp_path / "camera.png", WIDE // 16)
    assert read_image(path).max() == 16
    assert f"{path}: 16-bit image without a value above 16 of 255" in caplog.text


def packed_png(path: Path, labels: np.ndarray, bits: int) -> Path:
    """Write grey of less than 8 bits, as optimisers of PNG files do and Pillow does not."""
    per_byte = 8 // bits
    padded = np.pad(labels, ((0, 0), (0, -labels.shape[1] % per_byte)))
    weights = 2 ** (bits * np.arange(per_byte)[::-1])
    rows = (padded.reshape(len(labels), -1, per_byte) @ weights).astype(np.uint8)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", *labels.shape[::-1], bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_mask_whose_ids_a_reader_stretches_is_refused(tmp_path, bits):
    """Id 3 of 2 bits is read as 255, void: nobody would notice."""
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2**bits
    path = packed_png(tmp_path / "packed.png", labels, bits)
    stretched = np.asarray(Image.open(path).convert("L"))
    assert np.array_equal(stretched, labels * (255 // (2**bits - 1)))
    assert f"mask is stored as {bits}-bit grey" in error(read_mask, path)
    copy = save(tmp_path / "copy.png", labels)
    assert np.array_equal(read_mask(copy), labels)


def test_a_palette_of_few_colours_keeps_its_indices(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(tmp_path / "p.png", bits=2, transparency=0)
    assert np.array_equal(read_mask(tmp_path / "p.png"), labels)


def test_masks_that_need_not_hold_the_ids_that_were_drawn_are_refused(tmp_path):
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 5
    jpeg = save(tmp_path / "jpeg.png", labels, format="JPEG")
    assert "mask is a JPEG, whose compression changes ids" in error(read_mask, jpeg)
    exif = Image.Exif()
    for orientation in (1, 0):
        exif[0x0112] = orientation
        assert np.array_equal(read_mask(save(tmp_path / "m.png", labels, exif=exif)), labels)
    exif[0x0112] = 3
    turned = save(tmp_path / "turned.png", labels, exif=exif)
    assert "to be turned by its EXIF data" in error(read_mask, turned)
    transparent = save(tmp_path / "la.png", labels, "LA")
    assert "one channel of class ids" in error(read_mask, transparent)


def test_wide_and_negative_masks_keep_their_values(tmp_path):
    labels = np.array([[0, 300, 65535]], np.uint16)
    assert np.array_equal(read_mask(save(tmp_path / "wide.png", labels)), labels)
    negative = np.array([[-1, 2, 70000]], np.int32)
    assert np.array_equal(read_mask(save(tmp_path / "i.tif", negative)), negative)


def turned_pair(folder: Path) -> tuple[Path, Path]:
    """A photo that is stored on its side, and a mask of it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = save(folder / "photo.jpg", np.zeros((4, 8, 3), np.uint8), exif=exif)
    return photo, save(folder / "mask.png", np.zeros((8, 4), np.uint8))


def test_sizes_are_those_of_the_upright_photo(tmp_path):
    photo, mask = turned_pair(tmp_path)
    assert read_pair(photo, mask)[0].shape == (8, 4, 3)
    assert image_size(photo) == (4, 8)
    wrong = save(tmp_path / "wrong.png", np.zeros((4, 8), np.uint8))
    message = error(lambda path: read_pair(photo, path), wrong)
    assert f"8x4 px but its image {photo}, upright, is 4x8" in message


def test_a_converted_mask_of_a_turned_photo_is_not_made_again_and_again(tmp_path):
    photo, mask = turned_pair(tmp_path)
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    job = Job(images, masks, np.arange(256), copy=False)
    (images / f"photo{photo.suffix}").symlink_to(photo)
    save(masks / "photo.png", np.zeros((8, 4), np.uint8))
    assert is_current(job, Pair("photo", photo, mask))


def test_two_photos_of_one_id_are_not_to_be_removed(tmp_path):
    for suffix in (".jpg", ".png"):
        save(tmp_path / f"a{suffix}", GREY)
    with pytest.raises(ZssError, match=r"have the same id 'a'; keep masks and images in folders"):
        files_by_id(tmp_path, (".jpg", ".png"))
