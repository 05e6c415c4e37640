"""Every kind of image comes out as (H, W, 3) uint8, upright."""

from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image

from zss_d2.data.files.images import read_image
from zss_d2.errors import ZssError
from zss_d2.predict.decode import load_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def closed(file):
    file.close()
    return file


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp", "x.bmp"])
def test_files(tmp_path, name):
    path = saved(tmp_path / name, Image.fromarray(RGB), lossless=True)
    for source in (path, str(path), BytesIO(path.read_bytes()), Image.open(path)):
        assert np.array_equal(load_image(source), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_are_read_as_an_evaluation_reads_them(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(RGB).convert(mode))
    image = load_image(path)
    assert (image.shape, image.dtype) == ((6, 4, 3), np.uint8)
    assert np.array_equal(image, read_image(path))


def test_16_bit_and_arrays_by_hand(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    path = saved(tmp_path / "x.png", Image.fromarray(wide))
    grey = np.repeat(GREY[..., None], 3, axis=2)
    for source in (path, wide, GREY, GREY[..., None], GREY / 255):
        assert np.array_equal(load_image(source), grey)
    opaque = np.dstack([RGB, np.full_like(GREY, 7)])
    for source in (RGB, RGB.astype(np.float32) / 255, opaque, RGB.astype(np.uint16) * 257):
        assert np.array_equal(load_image(source), RGB)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
def test_images_are_upright(tmp_path, name):
    """Orientation 6: turned by 90 degrees, clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / name, Image.fromarray(np.zeros_like(RGB)), exif=exif)
    assert load_image(path).shape == (4, 6, 3)
    assert load_image(Image.open(path)).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.png", "no/such.png: the image is missing"),
        ("https://host/x.png", "addresses are not fetched"),
        (BytesIO(b"text"), "unreadable image"),
        (b"bytes", "is a bytes; give a path"),
        (StringIO("text"), "a file of text; open it as a binary one"),
        (closed(BytesIO()), "cannot be read: I/O operation on closed file"),
        (Image.new("RGB", (0, 3)), "the image has 0x3 px"),
        (np.zeros((3, 6, 4), np.uint8)[..., :2], r"array of shape \(3, 6, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "array of shape"),
        (np.full((2, 2), 255.0), "from 255 to 255; floating point stands for 0 to 1"),
        (np.full((2, 2), np.nan), "floating point stands for 0 to 1"),
        (np.zeros((2, 2), np.int64), "array of int64"),
        (Image.new("F", (2, 2)), "mode 'F'"),
    ],
)
def test_what_is_no_image_is_one_line(source, message):
    with pytest.raises(ZssError, match=message):
        load_image(source)
