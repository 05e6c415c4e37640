"""Files as other programs, cameras and systems leave them: read, or refused with what to do."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.utils import logger as d2_logger
from PIL import Image

from tests.data.conftest import load_script
from zss_d2.data.files import images as files
from zss_d2.data.files.listing import Location, load_records
from zss_d2.data.labels import hide_unseen
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec import registry
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.errors import ZssError

LABELS = np.arange(64, dtype=np.uint8).reshape(8, 8) % 5
GREY = np.full((96, 96), 90, np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def refused(path: Path) -> str:
    with pytest.raises(ZssError) as caught:
        files.read_mask(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def photo_of(yard: Path, name: str = "yard_1") -> Path:
    return yard.parent / "photos" / f"{name}.png"


def mask_of(yard: Path, name: str = "yard_1") -> Path:
    return yard.parent / "masks" / f"{name}.png"


# Photos that are turned.


def test_a_mask_of_a_turned_photo_as_it_is_stored_is_told_from_one_of_another_size(yard, run_check):
    wide = np.zeros((60, 96, 3), np.uint8)
    save(photo_of(yard), wide, exif=orientation(6))
    save(mask_of(yard), wide[..., 0])
    (line,) = run_check(yard)[2]
    assert "yard_1.png: the mask is 96x60 px but its image" in line
    assert "EXIF data turns the image, and the mask fits it as it was before; turn the mask" in line
    save(photo_of(yard), wide.transpose(1, 0, 2))
    (line,) = run_check(yard)[2]
    assert "EXIF" not in line
    # What it says works, either way.
    save(photo_of(yard), wide)
    assert run_check(yard)[0] == 0
    save(photo_of(yard), wide, exif=orientation(6))
    save(mask_of(yard), np.rot90(wide[..., 0], -1))
    assert run_check(yard)[0] == 0


def test_turned_photos_are_pointed_out_where_sizes_do_not_tell(yard, run_check):
    save(photo_of(yard), np.zeros((96, 96, 3), np.uint8), exif=orientation(3))
    status, out, _ = run_check(yard)
    assert status == 0
    assert "note: train: 1 images, such as yard_1, are turned by their EXIF data" in out


def test_a_tiff_that_is_to_be_turned_is_refused(tmp_path):
    path = save(tmp_path / "p.png", np.zeros((4, 8), np.uint8), format="TIFF", tiffinfo={274: 6})
    with pytest.raises(ZssError, match="image is a TIFF to be turned, .*; use a copy that is upri"):
        files.read_image(path)


# Depths.


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_colour_photo_of_ten_bits_is_announced(yard, run_check, suffix, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(d2_logger, "log_first_n", lambda level, text: lines.append(text))
    ten_bits = np.random.default_rng(0).integers(0, 1024, (96, 96, 3)).astype(np.uint16)
    other = yard.parent / f"wide.{suffix}"
    cv2.imwrite(str(other), ten_bits)
    shutil.copyfile(other, photo_of(yard))
    assert files.read_image(photo_of(yard)).max() == 3
    assert len(lines) == 1
    assert (
        f"{photo_of(yard)}: 16-bit image without a value above 3 of 255, nearly black" in lines[0]
    )
    status, out, _ = run_check(yard)
    assert status == 0
    assert "note: train: 1 images, such as yard_1, are 16-bit and nearly black" in out
    cv2.imwrite(str(other), ten_bits * 64)
    shutil.copyfile(other, photo_of(yard))
    lines.clear()
    assert files.read_image(photo_of(yard)).max() == 255
    assert lines == []
    assert "nearly black" not in run_check(yard)[1]


@pytest.mark.parametrize("ignore", [255, 300, 65535])
def test_masks_of_8_and_16_bits_may_share_any_ignore_label(yard, run_check, ignore):
    yard.write_text(yard.read_text().replace("ignore_label: 255", f"ignore_label: {ignore}"))
    wide = np.array(Image.open(mask_of(yard))).astype(np.uint16)
    wide[:9] = ignore
    save(mask_of(yard), wide)
    status, out, errors = run_check(yard)
    assert (status, errors) == (0, [])
    assert f"{ignore} | (ignored) |" in out
    for name in ("yard_0", "yard_1"):
        labels = files.read_mask(mask_of(yard, name))
        shown = hide_unseen(labels, [3], ignore)
        assert np.array_equal(shown, np.where(labels == 3, ignore, labels.astype(int)))


# Kinds of masks.


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".tif", {}),
        (".tiff", {"compression": "tiff_lzw"}),
        (".TIF", {"compression": "tiff_adobe_deflate"}),
        (".webp", {"lossless": True}),
    ],
)
def test_masks_may_be_tiff_or_lossless_webp(yard, run_check, suffix, options):
    labels = np.array(Image.open(mask_of(yard)))
    expected = run_check(yard)[1]
    mask_of(yard).unlink()
    path = save(mask_of(yard).with_suffix(suffix), labels, **options)
    assert np.array_equal(files.read_mask(path), labels)
    assert run_check(yard)[1] == expected


def test_a_16_bit_tiff_keeps_its_values(tmp_path):
    labels = np.array([[0, 300, 65535]], np.uint16)
    assert np.array_equal(files.read_mask(save(tmp_path / "m.tif", labels)), labels)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("m.webp", {"quality": 100}, "mask is a lossy WebP, whose compression changes ids"),
        ("m.tif", {"compression": "jpeg"}, "mask is a TIFF with jpeg inside, whose compression"),
        ("m.tif", {"tiffinfo": {262: 0}}, "mask is stored with white as zero"),
        ("m.tif", {"tiffinfo": {274: 3}}, "mask is to be turned by its EXIF data"),
    ],
)
def test_masks_of_these_kinds_whose_ids_are_not_certain_are_refused(
    tmp_path, name, options, expected
):
    assert expected in refused(save(tmp_path / name, LABELS, **options))


def test_a_mask_of_several_pages_or_of_colours_is_refused(tmp_path):
    pages = [Image.fromarray(LABELS + i) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert "mask is a file of 3 pictures" in refused(tmp_path / "pages.tif")
    colours = save(tmp_path / "c.webp", np.stack([LABELS, LABELS, LABELS + 1], -1), lossless=True)
    assert "one channel of class ids" in refused(colours)


@pytest.mark.parametrize("suffix", [".gif", ".jpg", ".bmp"])
def test_masks_of_other_kinds_are_named_and_what_is_read(yard, run_check, suffix):
    labels = np.array(Image.open(mask_of(yard)))
    mask_of(yard).unlink()
    save(mask_of(yard).with_suffix(suffix), labels)
    (line,) = run_check(yard)[2]
    assert f"no mask for 1 (yard_1) but 1 {suffix} files, such as yard_1{suffix}; " in line
    assert "masks are read from .png, .tif, .tiff, .webp files" in line


def test_a_folder_of_other_photos_is_told_what_is_read(yard, run_check):
    for path in (yard.parent / "photos").iterdir():
        Image.open(path).save(path.with_suffix(".tiff"))
        path.unlink()
    line = run_check(yard)[2][0]
    assert "photos: the folder holds no image but 6 .tiff files, such as yard_0.tiff; " in line
    assert "images are read from .jpg, .jpeg, .png files" in line


# Folders.


def test_what_macos_leaves_beside_files_is_passed_over(yard, run_check):
    expected = run_check(yard)[1]
    for folder in ("photos", "masks"):
        for name in ("._yard_0.png", "._yard_9.png", "._a.jpg"):
            (yard.parent / folder / name).write_bytes(b"\0\5\26\7")
    yard.write_text(yard.read_text().replace(", list: train.txt", ""))
    status, out, errors = run_check(yard)
    assert (status, errors) == (0, [])
    assert "train: 6 images checked" in out
    assert expected.splitlines()[0] in out


def test_photos_and_masks_in_one_folder_are_refused(yard, run_check):
    for path in (yard.parent / "photos").iterdir():
        Image.open(path).save(yard.parent / "masks" / f"{path.stem}.jpg")
    yard.write_text(yard.read_text().replace("images: photos", "images: masks"))
    for line in run_check(yard)[2]:
        assert "masks: images and masks lie in one folder" in line
        assert "put the masks into one of their own, and correct splits." in line


def test_files_that_are_links_to_themselves_are_as_good_as_missing(yard, run_check):
    for path in (photo_of(yard), mask_of(yard, "yard_2")):
        path.unlink()
        path.symlink_to(path)
    (line,) = run_check(yard)[2]
    assert "masks: no mask for 1 (yard_2)" in line
    mask_of(yard, "yard_2").unlink()
    save(mask_of(yard, "yard_2"), GREY % 2)
    (line,) = run_check(yard)[2]
    assert "photos: no image, or a link to itself or a link to a file that is gone, for 1" in line
    with pytest.raises(ZssError, match="the mask cannot be read .*; fix the file or link"):
        files.read_mask(photo_of(yard))


def test_a_folder_that_may_not_be_listed_is_one_line(tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(folder: Path) -> Iterator[os.DirEntry[str]]:
        if Path(folder).is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    location = Location(tmp_path / "images", tmp_path / "masks", "correct it")
    with pytest.raises(ZssError, match=r"images: cannot be listed \(Permission denied\)"):
        load_records(location, "a")


# Too large.


def test_an_image_beyond_the_limit_is_told_the_limit_and_how_to_raise_it(
    yard, run_check, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 96 // 2 - 1)
    status, _, errors = run_check(yard)
    assert status == 2
    assert "photos/yard_0.png: the image is too large: more than 9214 px, the limit" in errors[0]
    assert "cut it into tiles, or raise the limit by the environment variable" in errors[0]
    assert "fetch" not in errors[0]
    monkeypatch.setenv("ZSS_MAX_IMAGE_PIXELS", "9216")
    assert run_check(yard)[0] == 0
    monkeypatch.setenv("ZSS_MAX_IMAGE_PIXELS", "many")
    (line,) = run_check(yard)[2]
    assert "ZSS_MAX_IMAGE_PIXELS is 'many'; set it to a number" in line


def test_images_in_folders_of_the_folder_are_pointed_out_once(yard, run_check, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(registry, "log_first_n", lambda level, text, key: lines.append(text))
    text = yard.read_text()
    for folder in ("more", ".cache"):
        (yard.parent / "photos" / folder).mkdir()
    assert "are not read" not in run_check(yard)[1]  # there is a list
    yard.write_text(text.replace(", list: train.txt", ""))
    note = f"{yard.parent / 'photos'}: images in its folders, 1 (more), are not read"
    assert f"note: {note}" in run_check(yard)[1].splitlines()
    register_custom([yard])
    DatasetCatalog.get("zss_yard_train")
    assert lines == [note]


# Lists.


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_lists_may_be_saved_as_other_programs_do(yard, encoding):
    text = "yard_0\r\nyard_1\r\n"
    marked = f"\ufeff{text}" if encoding == "utf-16-le" else text
    (yard.parent / "train.txt").write_bytes(marked.encode(encoding))
    assert load_custom(yard).locations["train"].ids == ("yard_0", "yard_1")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "yard_0\n".encode("utf-16-be"),
            "holds null bytes, as UTF-16 does; save the text as UTF-8",
        ),
        ("gärten_0\n".encode("latin-1"), "byte 1 is not utf-8; save the text as UTF-8"),
    ],
)
def test_a_list_in_another_encoding_is_told_so(yard, content, expected):
    path = yard.parent / "train.txt"
    path.write_bytes(content)
    with pytest.raises(ZssError) as caught:
        load_custom(yard)
    assert str(caught.value) == f"{path}: {expected}"


def test_ids_may_have_blanks_and_dots_and_be_written_with_their_suffix(yard, run_check):
    for old, new in (("yard_0", "my yard 0"), ("yard_2", "yard.2"), ("yard_3", "yard.jpg")):
        photo_of(yard, old).rename(photo_of(yard, new))
        mask_of(yard, old).rename(mask_of(yard, new))
    (yard.parent / "train.txt").write_text("my yard 0\nyard_1.JPG\nyard.2\nyard.jpg\n")
    ids = load_custom(yard).locations["train"].ids
    assert ids == ("my yard 0", "yard_1", "yard.2", "yard.jpg")
    status, out, _ = run_check(yard)
    assert (status, "train: 4 images checked" in out) == (0, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yard_0 1\n", "line 1: 'yard_0 1' is not an image id"),
        ("yard_0\nyard_0.png\n", "line 2: 'yard_0' is also on line 1"),
        ("../photos/yard_0\n", "line 1: '../photos/yard_0' is not an image id"),
        ("..\\photos\\yard_0\n", r"line 1: '..\\photos\\yard_0' is not an image id"),
    ],
)
def test_lines_that_name_no_image_of_the_folder_are_refused(yard, text, expected):
    (yard.parent / "train.txt").write_text(text)
    with pytest.raises(ZssError) as caught:
        load_custom(yard)
    assert expected in str(caught.value)


# Masks with values that mean nothing, or that are to run.


def every_remedy(yard: Path, run_check, mapping: str) -> str:
    text = yard.read_text().replace("splits:", f"{mapping}splits:", 1)
    yard.write_text(text)
    labels = np.array(Image.open(mask_of(yard)))
    labels[0, :7] = 77
    save(mask_of(yard), labels)
    (line,) = run_check(yard)[2]
    return line


@pytest.mark.parametrize("mapping", ["", "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3, 255: 255}\n"])
def test_a_value_without_a_meaning_never_costs_the_mask(yard, run_check, mapping):
    line = every_remedy(yard, run_check, mapping)
    assert "yard_1.png: value 77 (7 pixels)" in line
    assert "correct the mask" in line
    assert "delete" not in line
    assert "fetch" not in line
    words = (
        ("what raw_to_train makes of the value",)
        if mapping
        else (
            "give raw_to_train in",
            "classes",
            "ignore_label",
        )
    )
    assert all(word in line for word in (str(yard), *words))
    # What it says works.
    if mapping:
        yard.write_text(yard.read_text().replace("255: 255", "255: 255, 77: 255"))
    else:
        more = "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3, 255: 255, 77: 0}\nsplits:"
        yard.write_text(yard.read_text().replace("splits:", more))
    assert run_check(yard)[0] == 0


def test_training_says_the_same_of_such_a_value_as_the_check(yard, run_check):
    line = every_remedy(yard, run_check, "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3}\n")
    register_custom([yard])
    record = DatasetCatalog.get("zss_yard_train")[1]
    with pytest.raises(ZssError) as caught:
        ZeroShotMapper(is_train=True, augmentations=[])(record)
    assert line == f"error: {caught.value}"


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("suffix", [".mat", ".png", ".npz"])
def test_a_mask_that_is_a_pickle_is_never_executed(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npz":
        np.savez(path, LabelMap=np.array([Payload()], object))
    else:
        path.write_bytes(pickle.dumps(Payload()))
    for read in (files.read_matlab_mask, files.read_mask):
        with pytest.raises(ZssError, match="unreadable mask"):
            read(path)
    assert not (tmp_path / "executed").exists()


def test_the_class_names_of_a_data_set_are_tokenized(yard, run_check):
    text = yard.read_text()
    yard.write_text(text.replace("square", "'&#100;isc'"))
    (line,) = run_check(yard)[2]
    assert "class 'disc' and class '&#100;isc' are the same tokens to CLIP" in line
    yard.write_text(text.replace("square", "word " * 80))
    assert "is longer than the 77 tokens that CLIP reads" in run_check(yard)[2][0]


# Preparations.


def late_exif_png(path: Path, array: np.ndarray) -> None:
    """Write a PNG whose EXIF data stands behind the pixels, as the format allows."""
    save(path, array, format="PNG")
    data = path.read_bytes()
    content = orientation(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + content))
    end = data.rindex(b"IEND") - 4
    path.write_bytes(data[:end] + chunk + data[end:])


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = {}
    for path in folder.rglob("*"):
        if not path.is_dir():
            content = path.read_bytes() if path.is_file() else b"lost"
            found[str(path.relative_to(folder))] = content, path.lstat().st_mtime_ns
    return found


@pytest.mark.parametrize("copy", [(), ("--copy",)])
@pytest.mark.parametrize(
    "kind", ["plain", "turned", "late EXIF", "from the future", "16 bit", "transparent"]
)
def test_preparing_again_changes_nothing_for_every_input_that_is_accepted(
    prepare, datasets, kind, copy
):
    name = "toy_val_0001"
    photo = datasets / "VOC2012" / "JPEGImages" / f"{name}.jpg"
    mask = datasets / "VOC2012" / "SegmentationClassAug" / f"{name}.png"
    labels = np.array(Image.open(mask))
    height, width = labels.shape
    pixels = np.zeros((width, height, 3), np.uint8)
    if kind == "turned":
        save(photo, pixels, exif=orientation(6))
    elif kind == "late EXIF":
        late_exif_png(photo, pixels)
    elif kind == "from the future":
        for path in (photo, mask):
            os.utime(path, (4e9, 4e9))
    elif kind == "16 bit":
        save(photo, np.zeros((height, width), np.uint16), format="PNG")
        save(mask, labels.astype(np.uint16))
    elif kind == "transparent":
        save(photo, np.zeros((height, width, 4), np.uint8), format="PNG")
    status, out, err = prepare(*copy)
    assert (status, "val: 5 prepared" in out) == (0, True), err
    before = snapshot(datasets / "zss")
    status, out, err = prepare(*copy)
    assert (status, "val: 0 prepared, 5 were up to date" in out) == (0, True), out
    assert snapshot(datasets / "zss") == before


def test_a_mask_that_was_exchanged_for_an_older_one_is_prepared_again(prepare, datasets):
    """What is unpacked from an archive is as old as the archive says."""
    prepare()
    mask = datasets / "VOC2012" / "SegmentationClassAug" / "toy_val_0001.png"
    labels = np.array(Image.open(mask))
    save(mask, np.full_like(labels, 3))
    os.utime(mask, (1e9, 1e9))
    assert "val: 1 prepared, 4 were up to date" in prepare()[1]
    prepared = Image.open(datasets / "zss/voc/annotations/val/toy_val_0001.png")
    assert set(np.unique(np.asarray(prepared))) == {2}


def test_a_photo_that_was_exchanged_for_an_older_one_is_copied_again(prepare, datasets):
    prepare("--copy")
    photo = datasets / "VOC2012" / "JPEGImages" / "toy_val_0001.jpg"
    content = bytearray(photo.read_bytes())
    content[-30] ^= 1
    photo.write_bytes(content)
    os.utime(photo, (1e9, 1e9))
    assert "val: 1 prepared, 4 were up to date" in prepare("--copy")[1]
    assert (datasets / "zss/voc/images/val/toy_val_0001.jpg").read_bytes() == bytes(content)


def test_masks_without_a_record_of_their_origin_are_kept_and_said_to_be(prepare, datasets):
    prepare()
    path = datasets / "zss/voc/annotations/val/toy_val_0001.png"
    save(path, np.array(Image.open(path)))
    mine = path.read_bytes()
    status, out, _ = prepare()
    assert (status, "val: 0 prepared, 5 were up to date" in out) == (0, True)
    assert f"note: val: 1 masks in {path.parent} do not say what they were made from" in out
    assert path.read_bytes() == mine


def test_originals_are_never_written_over(tmp_path, capsys):
    """The layout of COCO in which images and annotations are subfolders is that of the output."""
    root = tmp_path / "coco"
    for folder in ("train2017", "val2017"):
        for kind, array in (("images", GREY), ("images/stuffthingmaps", 0 * GREY)):
            (root / kind / folder).mkdir(parents=True)
            suffix = "png" if "maps" in kind else "jpg"
            save(root / kind / folder / f"7.{suffix}", array)
    before = snapshot(root)
    script = load_script("prepare_coco_stuff")
    arguments = ["--coco-root", str(root / "images"), "--output", str(root), "--workers", "1"]
    for copy in ([], ["--copy"]):
        status = script.run([*arguments, *copy])
        assert {key: value for key, value in snapshot(root).items() if key in before} == before
        assert status == 2
        err = capsys.readouterr().err
        assert "images/train2017/7.jpg: would be written over the original" in err
        assert "give another --output" in err
