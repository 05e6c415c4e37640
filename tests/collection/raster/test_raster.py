"""GeoTIFFs and large images: what is read, what labels keep, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from tests.collection.conftest import save_image
from zss_d2.collection.raster import reading
from zss_d2.collection.raster.kinds import Kind, inspect
from zss_d2.collection.raster.reading import Raster
from zss_d2.errors import ZssError
from zss_d2.predict.formats.records import decoded
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words

PLACE = {"crs": "EPSG:32633", "transform": from_origin(500000, 4600000, 0.5, 0.5)}


def save_raster(path, bands: np.ndarray, **options):
    """Write bands (B, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", **options}
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(path, "w", dtype=bands.dtype, **shape, **options) as dataset:
        dataset.write(bands)
    return path


@pytest.fixture
def bands():
    """(3, 40, 70) uint8, the red band with nodata, 0, in a corner of 5x10 px of all bands."""
    values = np.random.default_rng(0).integers(1, 255, (3, 40, 70), np.uint8)
    values[:, :5, :10] = 0
    return values


def expected(bands):
    labels = bands[0] % 3
    labels[:5, :10] = 254
    return labels


@pytest.mark.parametrize("large", [64, 0.001], ids=["whole", "by windows"])
def test_labels_lie_where_the_image_lies(predict, bands, tmp_path, large):
    save_raster(tmp_path / "in/sub/map.tif", bands, nodata=0, **PLACE)
    options = ("--formats", "labels", "overlay", "coco", "csv", "--large", large, "--tile", 80)
    assert predict(tmp_path / "in", *options) == 0
    with rasterio.open(tmp_path / "out/labels/sub/map.tif") as dataset:
        assert (dataset.read(1) == expected(bands)).all()
        assert dataset.crs == PLACE["crs"]
        assert dataset.transform == PLACE["transform"]
        assert dataset.nodata == 254
        assert dataset.compression.name == "deflate"
        words = Words.of(["a", "b", "c"])
        colours = [dataset.colormap(1)[label][:3] for label in (0, 1, 2, 254)]
        assert (colours == label_colours(words)[[0, 1, 2, 254]]).all()
    content = json.loads((tmp_path / "out/coco.json").read_text())
    masks = {x["category_id"]: decoded(x) for x in content["annotations"]}
    for label in range(3):
        assert (masks[label] == (expected(bands) == label)).all()
    scores = {x["category_id"]: x["score"] for x in content["annotations"]}
    assert scores[1] == pytest.approx(bands[0][expected(bands) == 1].mean() / 255, abs=1e-5)
    record = json.loads((tmp_path / "out/predict.jsonl").read_text())
    assert record["area"]["b"] == pytest.approx((expected(bands) == 1).mean())
    assert record["files"]["labels"] == "labels/sub/map.tif"
    with Image.open(tmp_path / "out/overlay/sub/map.png") as picture:
        assert picture.width >= 70


def test_a_large_image_of_any_kind_is_read_by_windows(predict, fake, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(values).save(tmp_path / "in/plain.png")
    options = ("--large", "0.1", "--tile", 200, "--formats", "labels")
    assert predict(tmp_path / "in", *options) == 0
    with rasterio.open(tmp_path / "out/labels/plain.tif") as dataset:
        assert (dataset.read(1) == values[..., 0] % 3).all()
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.crs is None
        assert dataset.nodata is None
    assert fake.groups == []
    assert predict(tmp_path / "in", *options) == 0


def test_the_overlay_of_a_large_image_is_smaller(predict, bands, tmp_path, monkeypatch):
    monkeypatch.setattr("zss_d2.collection.raster.large.OVERVIEW_PX", 35)
    save_raster(tmp_path / "in/map.tif", bands, **PLACE)
    assert predict(tmp_path / "in", "--large", "0.001", "--no-legend") == 0
    with Image.open(tmp_path / "out/overlay/map.png") as picture:
        assert picture.size == (35, 20)


def test_16_bit_grey_palette_and_more_bands(tmp_path, bands):
    whole = slice(0, 40), slice(0, 70)
    wide = bands.astype(np.uint16) * 257
    with Raster(str(save_raster(tmp_path / "wide.tif", wide, **PLACE))) as raster:
        assert (raster.read(*whole) == bands.transpose(1, 2, 0)).all()
        assert raster.valid(*whole) is None
    with Raster(str(save_raster(tmp_path / "grey.tif", bands[:1], **PLACE))) as raster:
        assert (raster.read(slice(3, 8), slice(2, 4)) == bands[0, 3:8, 2:4, None]).all()
    with Raster(str(save_raster(tmp_path / "many.tif", bands[[0, 1, 2, 0, 1]], **PLACE))) as raster:
        assert (raster.read(*whole) == bands.transpose(1, 2, 0)).all()
        assert raster.left_out in (1, 2)  # by itself, rasterio takes the fourth for transparency
    palette = Image.fromarray(bands[0] % 2).convert("P")
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.save(tmp_path / "palette.tif")
    with Raster(str(tmp_path / "palette.tif")) as raster:
        colours = np.array([[1, 2, 3], [40, 50, 60]])[bands[0] % 2]
        # Some versions of rasterio round palettes of 16 bit down.
        assert abs(raster.read(*whole) - colours).max() <= 1


def test_what_needs_rasterio_is_seen_in_the_header(tmp_path, bands):
    def kind(path, large=10**6):
        return inspect(str(path), large)

    image = save_image(tmp_path / "a.png", size=(20, 10))
    assert kind(image) == ((10, 20), Kind.PLAIN)
    assert kind(image, 199) == ((10, 20), Kind.LARGE)
    assert kind(save_image(tmp_path / "a.tif")) == ((6, 8), Kind.PLAIN)
    assert kind(image.rename(tmp_path / "png.tif")) == ((10, 20), Kind.PLAIN)
    assert kind(save_raster(tmp_path / "b.tif", bands, **PLACE)) == ((40, 70), Kind.RASTER)
    # Pillow knows no such TIFF.
    wide = np.stack([*bands.astype(np.uint16), *bands[:2]])
    assert kind(save_raster(tmp_path / "c.tif", wide)) == ((40, 70), Kind.RASTER)
    (tmp_path / "bad.tif").write_bytes(b"II*\0 no")
    assert kind(tmp_path / "bad.tif") == (None, Kind.PLAIN)
    assert kind(tmp_path / "gone.png") == (None, Kind.PLAIN)


def test_an_image_above_the_limit_of_pillow_is_large(tmp_path, monkeypatch):
    image = save_image(tmp_path / "a.png", size=(50, 50))
    monkeypatch.setenv("ZSS_MAX_IMAGE_PIXELS", "1000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert inspect(str(image), 10**6) == ((50, 50), Kind.LARGE)


def test_nothing_is_said_of_images_that_are_read_by_windows_anyway(
    predict, tmp_path, monkeypatch, recwarn
):
    save_image(tmp_path / "in/a.png", size=(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow warns from there
    assert predict(tmp_path / "in", "--large", 0.001) == 0
    assert not [x for x in recwarn if issubclass(x.category, Image.DecompressionBombWarning)]


def test_values_whose_range_is_unknown_are_refused_with_a_remedy(predict, bands, tmp_path):
    save_raster(tmp_path / "in/float.tif", bands.astype(np.float32), **PLACE)
    save_raster(tmp_path / "in/good.tif", bands, **PLACE)
    assert predict(tmp_path / "in", "--formats", "labels") == 1
    images = json.loads((tmp_path / "out/predict.json").read_text())["images"]
    assert [image["status"] for image in images] == ["failed", "done"]
    assert "float32, whose range is unknown; use a copy of 8 bit" in images[0]["error"]


def test_damaged_files_and_arrays_of_large_images_are_the_images_fault(predict, bands, tmp_path):
    path = save_raster(tmp_path / "in/half.tif", bands, tiled=False, **PLACE)
    path.write_bytes(path.read_bytes()[:3000])
    assert predict(tmp_path / "in", "--formats", "labels") == 1
    (image,) = json.loads((tmp_path / "out/predict.json").read_text())["images"]
    assert "rasterio cannot read it" in image["error"]
    save_raster(path, bands, **PLACE)
    assert (
        predict(tmp_path / "in", "--formats", "npz", "--large", "0.001", "--output", tmp_path / "x")
        == 1
    )


@pytest.mark.parametrize("name", ["half.png", "half.tif"])
def test_half_a_png_is_damaged_not_half_empty(predict, tmp_path, name):
    path = save_image(tmp_path / "in/half.png", size=(90, 90))
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    path.rename(tmp_path / "in" / name)
    assert predict(tmp_path / "in", "--formats", "labels", "--large", 0.001, "--tile", 500) == 1


def test_what_leads_to_other_files_is_not_read(predict, bands, tmp_path):
    other = save_raster(tmp_path / "other.tif", bands)
    source = f"<SimpleSource><SourceFilename>{other}</SourceFilename></SimpleSource>"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_text(
        '<VRTDataset rasterXSize="70" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1">'
        f"{source}</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ZssError, match="a file of the kind VRT is not read; give a TIFF"):
        Raster(str(tmp_path / "in/a.tif"))
    assert predict(tmp_path / "in", "--formats", "labels") == 1


def test_without_rasterio_the_extra_is_named(predict, bands, tmp_path, monkeypatch):
    save_raster(tmp_path / "in/map.tif", bands, **PLACE)
    save_image(tmp_path / "in/plain.png")
    for module in ("zss_d2.collection.raster.reading", "zss_d2.collection.raster.kinds"):
        monkeypatch.setattr(f"{module}.has_rasterio", lambda: False)
    assert predict(tmp_path / "in", "--formats", "labels") == 1
    images = json.loads((tmp_path / "out/predict.json").read_text())["images"]
    assert [image["status"] for image in images] == ["failed", "done"]
    assert "pip install 'zss_d2[geo]'" in images[0]["error"]
    with pytest.raises(ZssError, match="--large"):
        reading.import_rasterio("x.tif")
