"""``zss predict`` with a fake model: what is written, done again, refused and told."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.collection.conftest import POISON, files_of, save_image
from zss_d2.collection.work import images as image_work
from zss_d2.data.pipeline.written_labels import WrittenLabels
from zss_d2.engine import output_folder
from zss_d2.errors import ZssError
from zss_d2.predict.formats.base import ImageFormat
from zss_d2.predict.sheet import GAP, HEIGHT
from zss_d2.utils import writing


@pytest.fixture
def folder(tmp_path):
    """Five images of one size and one of another; values 0, 10, ..., 50."""
    for index in range(5):
        save_image(tmp_path / f"in/{'abcde'[index]}.png", 10 * index)
    save_image(tmp_path / "in/sub/Ünï 犬.png", 50, (5, 5))
    return tmp_path / "in"


def manifest(tmp_path):
    return json.loads((tmp_path / "out/predict.json").read_text())


def statuses(tmp_path):
    return {x["file_name"]: x["status"] for x in manifest(tmp_path)["images"]}


def test_results_lie_as_the_images_do(predict, folder, tmp_path, capsys):
    assert predict(folder, "--formats", "labels", "overlay", "csv", "coco", "--batch", 4) == 0
    names = ["a", "b", "c", "d", "e", "sub/Ünï 犬"]
    assert set(files_of(tmp_path / "out")) == {
        *(f"labels/{name}.png" for name in names),
        *(f"overlay/{name}.png" for name in names),
        *("areas.csv", "coco.json", "predict.jsonl"),
    }
    labels = np.asarray(Image.open(tmp_path / "out/labels/e.png"))
    assert labels.shape == (6, 8)
    assert (labels == 40 % 3).all()
    output = capsys.readouterr()
    assert output.out.startswith(f"{tmp_path / 'out'}: 6 of 6 images labelled in ")
    assert output.err == ""


def test_the_manifest_says_with_what_and_what_became_of_it(predict, folder, tmp_path):
    assert predict(folder, "--unknown-below", "0.1", "b=0.6", "--seen-bias", "0.2") == 0
    content = manifest(tmp_path)
    assert content["words"] == {
        "classes": [["a"], ["b"], ["c"]],
        "background": [],
        "unknown_below": {"a": 0.1, "b": 0.6, "c": 0.1},
    }
    assert content["sentences"] == ["a photo of a {}."]
    assert content["options"]["seen_bias"] == 0.2
    assert content["state"] == "finished"
    assert content["totals"] == {"images": 6, "done": 6}
    counts = {"labelled": 6, "failed": 0, "processes": 1}
    assert counts.items() < content["last_run"].items()
    assert 0 <= content["last_run"]["labelling_seconds"] <= content["last_run"]["seconds"]
    assert content["versions"].keys() >= {"commit", "torch", "version"}
    assert content["images"][5] == {
        "file_name": "sub/Ünï 犬.png",
        "status": "done",
        "files": {"labels": "labels/sub/Ünï 犬.png", "overlay": "overlay/sub/Ünï 犬.png"},
    }


def test_a_training_takes_what_was_written_as_pseudo_labels(predict, fake, folder, tmp_path):
    """Classes by name; what is background has no label."""
    words = ("--classes", "b", "c|sea", "--background", "rest")
    predict(folder, "--formats", "labels", *words)
    written = WrittenLabels(tmp_path / "out", ("c", "a", "b"), ("a",), ignore=255)
    files = {name: str(folder / f"{name}.png") for name in "abcde"}
    written.require([{"file_name": str(folder / "sub/Ünï 犬.png")}, {"file_name": files["a"]}])
    # Red values 0, 10, ..., 40; ids are the remainder modulo three: background, b, c.
    expected = {"a": 255, "b": 2, "c": 0, "d": 255, "e": 2}
    for name, label in expected.items():
        labels = written.read(files[name], (6, 8))
        assert labels.shape == (6, 8)
        assert (labels == label).all(), name
    with pytest.raises(ZssError, match=r"a.png: labels of 8 x 6 px for .*a.png of 8 x 7"):
        written.read(files["a"], (7, 8))
    with pytest.raises(ZssError, match="no labels of 1 of the 2 training images, such as new.png"):
        written.require([{"file_name": "new.png"}, {"file_name": files["a"]}])
    (tmp_path / "out/labels/a.png").unlink()
    with pytest.raises(ZssError, match="a.png"):
        written.read(files["a"], (6, 8))
    fake.segmentor.identity = lambda: {"train_classes": ["a"], "templates": ["a photo of a {}."]}
    predict(folder, "--output", tmp_path / "leaky")
    with pytest.raises(ZssError, match="was trained with labels of 1 unseen classes"):
        WrittenLabels(tmp_path / "leaky", ("c", "a", "b"), ("a",), ignore=255)


def test_images_of_one_size_go_through_the_network_together(predict, fake, folder):
    assert predict(folder, "--batch", 4) == 0
    assert fake.groups == [[0, 10, 20, 30], [40], [50]]


def test_only_what_is_missing_is_done_but_in_the_same_batches(predict, fake, folder, tmp_path):
    options = (folder, "--batch", 4, "--formats", "labels", "coco")
    assert predict(*options) == 0
    before = files_of(tmp_path / "out")
    fake.groups.clear()
    assert predict(*options) == 0
    assert fake.groups == []
    (tmp_path / "out/labels/b.png").unlink()
    (tmp_path / "out/labels/e.png").write_bytes(b"")  # as a loss of power leaves it
    times = os.stat(tmp_path / "out/labels/a.png").st_mtime_ns
    assert predict(*options) == 0
    assert fake.groups == [[0, 10, 20, 30], [40]]
    assert os.stat(tmp_path / "out/labels/a.png").st_mtime_ns == times
    assert files_of(tmp_path / "out") == before


def test_more_images_and_formats_can_follow(predict, fake, folder, tmp_path, capsys):
    assert predict(folder, "--formats", "labels") == 0
    fake.groups.clear()
    save_image(tmp_path / "more/z.png", 60)
    # Two folders would otherwise be told apart by their names.
    assert predict(folder, tmp_path / "more", "--formats", "labels") == 0
    assert fake.groups == [[60]]
    assert "1 of 7 images labelled" in capsys.readouterr().out.splitlines()[-1]
    assert set(statuses(tmp_path)) == {
        *(f"{x}.png" for x in "abcde"),
        *("sub/Ünï 犬.png", "more/z.png"),
    }
    fake.groups.clear()
    assert predict(folder, "--formats", "csv") == 0
    assert fake.groups == []
    assert (tmp_path / "out/areas.csv").read_text().count("\n") == 8
    capsys.readouterr()
    assert predict(folder, "--formats", "coco") == 0  # needs masks, which were not kept
    assert len(fake.groups) == 6
    assert "note: 1 image of earlier runs has no mask, and is left" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out/coco.json").read_text())["images"]) == 6


def test_an_image_that_has_changed_is_labelled_again(predict, fake, folder, capsys):
    assert predict(folder) == 0
    fake.groups.clear()
    save_image(folder / "c.png", 99)
    os.utime(folder / "c.png", ns=(1, 1))
    assert predict(folder) == 0
    assert fake.groups == [[99]]
    assert "note: 1 image has changed since, and is labelled again" in capsys.readouterr().err
    for name in ("a.png", "c.png"):
        os.utime(folder / name, ns=(2, 2))
    assert predict(folder) == 0
    assert "note: 2 images have changed since, and are labelled again" in capsys.readouterr().err


def test_images_that_fail_are_noted_and_tried_again(predict, folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"no image")
    save_image(folder / "d.png", POISON)
    (tmp_path / "list.txt").write_text(f"{folder}\n{folder}/gone.png\n")
    options = (f"@{tmp_path / 'list.txt'}", "--batch", 4, "--formats", "labels", "csv")
    assert predict(*options) == 1
    assert [name for name, status in statuses(tmp_path).items() if status == "failed"] == [
        *("b.png", "d.png", "gone.png")
    ]
    errors = {x["file_name"]: x.get("error", "") for x in manifest(tmp_path)["images"]}
    assert errors["b.png"].startswith("unreadable image (UnidentifiedImageError)")
    assert errors["d.png"] == "the scores hold NaN"
    assert "is missing" in errors["gone.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"failed: 3 of 7 images, such as {folder / 'b.png'}: unreadable image (")
    assert (tmp_path / "out/areas.csv").read_text().count("\n") == 5
    save_image(folder / "b.png", 10)
    save_image(folder / "d.png", 30)
    (tmp_path / "list.txt").write_text(f"{folder}\n")
    assert predict(*options) == 0
    assert set(statuses(tmp_path).values()) == {"done"}
    assert len(statuses(tmp_path)) == 6


def test_nobody_waits_for_a_pipe(predict, folder, tmp_path):
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (tmp_path / "list.txt").write_text(f"{folder}\n{folder}/pipe.png\n")
    assert predict(f"@{tmp_path / 'list.txt'}") == 1
    failed = {x["file_name"]: x["error"] for x in manifest(tmp_path)["images"] if "error" in x}
    assert failed == {"pipe.png": f"{folder / 'pipe.png'} is no file; leave it out"}


def test_whatever_a_file_leads_to_concerns_that_file(predict, folder, tmp_path, monkeypatch):
    def fail(path):
        if path.endswith("b.png"):
            raise IndexError("list index out of range")
        raise MemoryError

    monkeypatch.setattr(image_work, "load_image", fail)
    assert predict(folder) == 1
    errors = [image["error"] for image in manifest(tmp_path)["images"]]
    assert errors[0] == "the image does not fit into memory; cut it into pieces"
    assert errors[1].startswith("unreadable image (IndexError: list index out of range)")


def test_a_name_that_grows_too_long_concerns_its_image_alone(predict, folder, tmp_path):
    long = "x" * 250
    save_image(folder / f"{long}.png")
    save_image(folder / f"{long}.bmp")
    assert predict(folder) == 1
    failed = [name for name, status in statuses(tmp_path).items() if status == "failed"]
    assert failed == [f"{long}.bmp", f"{long}.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--classes", "a", "b"], "words.classes: [['a'], ['b'], ['c']] there"),
        (["--background", "d"], "words.background: [] there (see predict.json), [['d']] now"),
        (["--templates", "an {}."], "sentences: ['a photo of a {}.'] there"),
        (["--size", "64"], "options.size: None there (see predict.json), 64 now"),
        (["--unknown-below", "c=0.5"], "words.unknown_below: {} there"),
    ],
)
def test_a_folder_of_other_words_or_options_is_refused(predict, folder, change, message, capsys):
    assert predict(folder) == 0
    capsys.readouterr()
    assert predict(folder, *change) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.endswith("; give another --output\n")
    assert error.count("\n") == 1


def test_another_model_or_checkpoint_is_refused(predict, fake, folder, tmp_path, capsys):
    fake.checkpoint = str(tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(b"1")
    assert predict(folder) == 0
    (tmp_path / "model.pth").rename(tmp_path / "same.pth")
    fake.checkpoint = str(tmp_path / "same.pth")
    assert predict(folder) == 0
    (tmp_path / "same.pth").write_bytes(b"2")
    assert predict(folder) == 2
    assert "weights.checkpoint" in capsys.readouterr().err
    (tmp_path / "same.pth").write_bytes(b"1")
    fake.cfg.INPUT.MIN_SIZE_TEST = 99
    assert predict(folder) == 2
    assert "INPUT.MIN_SIZE_TEST" in capsys.readouterr().err


def test_other_files_are_not_written_over(predict, fake, folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    assert predict(folder) == 2
    assert "holds 'thesis.tex' and no predict.json" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predict.json").write_text("{}")
    assert predict(folder) == 2
    assert "predict.json is damaged, or not of zss predict" in capsys.readouterr().err
    assert fake.groups == []


def test_results_of_another_image_are_not_written_over(predict, folder, tmp_path, capsys):
    assert predict(folder) == 0
    save_image(tmp_path / "elsewhere/a.png", 77)
    assert predict(tmp_path / "elsewhere") == 2
    error = capsys.readouterr().err
    assert f"what is called a there is of {folder / 'a.png'}, not of" in error


def test_a_collection_that_was_moved_is_still_done(predict, fake, folder, tmp_path):
    assert predict(folder) == 0
    fake.groups.clear()
    folder.rename(tmp_path / "moved")
    assert predict(tmp_path / "moved") == 0
    assert fake.groups == []


def test_a_folder_serves_one_run_at_a_time(predict, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(output_folder, "PATIENCE_S", 0.1)
    # Locks are the process's own, so another one has to have it.
    monkeypatch.setattr(output_folder.fcntl, "lockf", _taken)
    assert predict(folder) == 2
    assert f"error: --output {tmp_path / 'out'} is in use by" in capsys.readouterr().err


def _taken(*_):
    raise BlockingIOError


def test_a_full_disk_ends_it_and_loses_nothing(
    predict, fake, folder, tmp_path, monkeypatch, capsys
):
    write = ImageFormat.write

    def full(self, path, *args, **options):
        if path.name == "d.png":
            error = OSError(errno.ENOSPC, "No space left on device")
            raise writing.write_error(error, path) from error
        write(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFormat, "write", full)
        assert predict(folder, "--formats", "labels") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'out/labels/d.png'}: cannot be written, the disk")
    assert error.count("\n") == 1
    assert manifest(tmp_path)["state"] == "not finished"
    fake.groups.clear()
    assert predict(folder, "--formats", "labels") == 0
    assert [0] not in fake.groups
    assert [30] in fake.groups


def test_half_a_line_of_a_killed_process_does_not_count(predict, fake, folder, tmp_path):
    assert predict(folder) == 0
    whole = files_of(tmp_path / "out")
    journal = tmp_path / "out/.journal/000001-00000.jsonl"
    journal.parent.mkdir()
    content = (tmp_path / "out/predict.jsonl").read_bytes()
    (tmp_path / "out/predict.jsonl").unlink()
    journal.write_bytes(content[: content.index(b"\n") * 2])
    fake.groups.clear()
    assert predict(folder) == 0
    assert [0] not in fake.groups
    assert len(fake.groups) == 5
    assert files_of(tmp_path / "out") == whole
    assert not journal.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "a", "nonsense"], "CLIP does not know the word 'nonsense'"),
        (["--classes", "a", "a"], "'a' is given twice"),
        (["--classes", "a", ""], "empty wording"),
        (["--unknown-below", "2"], "argument --unknown-below: '2' is no number from 0 to 1"),
        (["--unknown-below", "dog=0.5"], "unknown_below names 'dog'"),
        (["--unknown-below", "0.3", "0.4"], "--unknown-below has two scores of all classes"),
        (["--unknown-below", "a=0.3", " a=0.4"], "--unknown-below has two scores of 'a'"),
        (["--formats", "labels", "gif"], "'gif' is no format"),
        (["--templates", "no place"], "'no place'"),
        (["--template-set", "all"], "use one of single"),
        (["--classes-file", "no.txt"], "no.txt: No such file"),
        (["--batch", "0"], "argument --batch: 0 is too small"),
        (["--batch", "100000"], "argument --batch: 100000 is too large; give 1024 or less"),
        (["--tile", "1"], "argument --tile: 1 is too small; give 0, or 32 or more"),
        (["--size", "65535"], "argument --size: 65535 is too large; give 8192 or less"),
        (["--formats", "overlay", "--sheet"], "--sheet is drawn from label maps"),
        (["--formats", "labels", "--opacity", "0.3"], "--opacity is of overlays"),
        (["--formats", "labels", "--sheet", "--no-legend"], "--no-legend is of overlays"),
        (["--tile", "0", "--overlap", "0.1"], "--overlap is of tiles, and --tile 0 makes none"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    predict, folder, tmp_path, arguments, message, capsys
):
    assert predict(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_words_come_from_a_file_too(predict, folder, tmp_path):
    (tmp_path / "words.txt").write_text("a|first  # comment\n\nb\n")
    assert predict(folder, "--classes-file", tmp_path / "words.txt") == 0
    assert manifest(tmp_path)["words"]["classes"] == [["a", "first"], ["b"]]


def test_blanks_in_words_do_not_count(predict, folder, tmp_path):
    thresholds = "--unknown-below", "0.3", "b   c=0.4"
    assert predict(folder, "--classes", "a", " b  c|d", *thresholds) == 0
    assert manifest(tmp_path)["words"]["unknown_below"] == {"a": 0.3, "b c": 0.4}


def test_what_a_format_cannot_hold_concerns_its_image_alone(predict, folder, tmp_path, capsys):
    save_image(folder / "wide.png", size=(66000, 3))
    formats = "--formats", "overlay-jpg", "csv"
    assert predict(folder, *formats) == 1
    assert "JPEG takes 65500 at most" in capsys.readouterr().err
    assert manifest(tmp_path)["totals"] == {"images": 7, "done": 6, "failed": 1}
    assert (tmp_path / "out/areas.csv").is_file()


def test_memory_that_does_not_suffice(predict, fake, folder, tmp_path, monkeypatch, capsys):
    def no_memory(images, words, options):
        raise image_work.torch.OutOfMemoryError
        yield

    monkeypatch.setattr(fake, "label", no_memory)
    assert predict(folder, "--batch", 4) == 2
    assert "lower --batch" in capsys.readouterr().err
    assert predict(folder) == 1
    assert "give a --size or --tile" in manifest(tmp_path)["images"][0]["error"]


def test_a_sheet_has_the_opacity_that_is_given(predict, folder, tmp_path):
    """Without labels it is the image twice."""
    width = 8 * HEIGHT // 6
    for opacity, same in (("0", True), ("0.6", False)):
        output = tmp_path / opacity
        options = ("--formats", "labels", "--sheet", "1", "--opacity", opacity)
        assert predict(folder, *options, "--output", output) == 0
        picture = np.asarray(Image.open(output / "sheet.png"))[:HEIGHT]
        labels = picture[:, width + GAP : 2 * width + GAP]
        assert np.array_equal(picture[:, :width], labels) == same


@pytest.mark.parametrize(("words", "said"), [(("a", "b"), False), (("b", "c"), True)])
def test_a_seen_bias_without_effect_is_said(predict, folder, capsys, words, said):
    """The model was trained with labels of "a"."""
    assert predict(folder, "--seen-bias", "0.1", "--classes", *words) == 0
    assert ("--seen-bias has no effect" in capsys.readouterr().err) == said


@pytest.mark.parametrize("trained", [True, False])
def test_a_seen_bias_of_what_was_not_trained_is_said(predict, folder, fake, capsys, trained):
    if not trained:
        fake.segmentor.parameters = list
    assert predict(folder, "--seen-bias", "0.1", "--classes", "a", "b") == 0
    said = "--seen-bias lowers a, which the data set of the config calls seen; this method was"
    assert (said in capsys.readouterr().err) != trained
