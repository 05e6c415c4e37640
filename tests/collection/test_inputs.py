"""Which images are found, and what their results are called."""

from __future__ import annotations

import os

import pytest

from zss_d2.collection.inputs import find_images
from zss_d2.errors import ZssError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files; whether they are images is seen when they are read."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("in/b.png", "in/a.JPG", "in/sub/c.tif", "in/.hidden.png", "in/._a.JPG", "in/notes.txt"),
        *("in/.git/x.png", "other/a.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(tree, *arguments, output="out"):
    return [image.name for image in find_images(arguments, tree / output).images]


def test_folders_are_read_with_all_in_them_but_hidden_files(tree):
    images, notes = find_images(["in"], tree / "out")
    assert [image.file for image in images] == ["a.JPG", "b.png", "sub/c.tif"]
    assert [image.name for image in images] == ["a", "b", "sub/c"]
    assert images[2].path == str(tree / "in/sub/c.tif")
    assert notes == []


def test_several_folders_get_what_tells_them_apart(tree):
    assert names(tree, "in", "other") == ["in/a", "in/b", "in/sub/c", "other/a"]
    assert names(tree, "other", "in") == names(tree, "in", "other")


def test_files_and_patterns_lie_as_below_the_folder_that_holds_them(tree):
    assert names(tree, "in/b.png") == ["b"]
    assert names(tree, "in/b.png", "in/sub/c.tif") == ["b", "sub/c"]
    assert names(tree, "**/*.[jJt]*") == ["in/a", "in/sub/c", "other/a"]
    (tree / "in/x[1].png").touch()
    assert names(tree, "in/x[1].png") == ["x[1]"]


def test_lists_have_a_path_per_line(tree):
    (tree / "list.txt").write_bytes(b"in/b.png\r\n\n  other/a.jpg\nin/gone.png\n")
    # What is gone fails when it is read, as what is damaged.
    assert names(tree, "@list.txt") == ["in/b", "in/gone", "other/a"]


def test_what_is_given_twice_is_labelled_once_and_said(tree):
    images, notes = find_images(["in", "in/../in/b.png", "in/sub", "./in"], tree / "out")
    assert [image.name for image in images] == ["a", "b", "sub/c"]
    assert len(notes) == 1
    assert "b.png and 1 more are given more than once" in notes[0]


def test_names_that_would_be_the_same_keep_their_suffix(tree):
    for name in ("x.png", "x.jpg", "x.jpg.png", "y.png"):
        (tree / "in/sub" / name).touch()
    images, notes = find_images(["in/sub"], tree / "out")
    assert {image.file: image.name for image in images} == {
        "c.tif": "c",
        "x.jpg": "x.jpg",
        "x.jpg.png": "x.jpg.png",
        "x.png": "x.png",
        "y.png": "y",
    }
    assert "3 images, such as x.jpg, differ from others in their suffix only" in notes[0]


def test_the_output_within_an_input_is_no_input(tree):
    (tree / "in/out").mkdir()
    (tree / "in/out/x.png").touch()
    assert "out/x" in names(tree, "in")
    assert "out/x" not in names(tree, "in", output="in/out")


def test_results_are_no_input_however_they_are_named(tree):
    for folder, manifest in (("in/old", '{\n  "kind": "zss predict"'), ("in/own", '{"kind": 1}')):
        (tree / folder / "labels").mkdir(parents=True)
        (tree / folder / "labels/a.png").touch()
        (tree / folder / "predict.json").write_text(manifest)
    (tree / "out/labels").mkdir(parents=True)
    (tree / "out/labels/a.png").touch()
    images, notes = find_images(["in"], tree / "out")
    assert [image.name for image in images] == ["a", "b", "own/labels/a", "sub/c"]
    assert notes == [f"{tree}/in/old is left out, as results of zss predict"]
    # As a shell expands * and **.
    images, notes = find_images(["in/b.png", "out", "out/labels/a.png"], tree / "out")
    assert [image.name for image in images] == ["b"]
    assert notes == [f"{tree}/out and 1 more are left out, as results of zss predict"]
    assert names(tree, "*/**/*.png") == ["b", "own/labels/a"]
    (tree / "link").symlink_to(tree / "in/old/labels")
    with pytest.raises(ZssError, match="link: there is no image, but for results of zss predict;"):
        find_images(["link"], tree / "out")


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "in/sub/up").symlink_to(tree / "in")
    (tree / "in/self").symlink_to("self")
    (tree / "in/far").symlink_to(tree / "other")
    assert names(tree, "in") == ["a", "b", "far/a", "sub/c"]


def test_names_may_hold_anything(tree):
    odd = ["mit blank", "Übergröße", "犬", "new\nline", os.fsdecode(b"\xff")]
    for name in odd:
        (tree / "other" / f"{name}.png").touch()
    assert set(names(tree, "other")) == {"a", *odd}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("", "'': no such file or folder"),
        ("in/*.bmp", "in/*.bmp: no image matches"),
        ("in/notes.txt", "in/notes.txt is no image of a kind that is read; give files that end in"),
        ("in/.git/..", ""),
        ("@no.txt", "@no.txt: No such file or directory"),
        ("https://x.org/a.png", "addresses are not fetched"),
        ("empty", "empty: there is no image; give files or folders"),
    ],
)
def test_what_cannot_be_an_input_is_one_line(tree, argument, message):
    (tree / "empty").mkdir()
    if not message:
        assert names(tree, argument) == ["a", "b", "sub/c"]
        return
    with pytest.raises(ZssError) as error:
        find_images([argument], tree / "out")
    assert message in str(error.value)
