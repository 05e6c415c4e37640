"""The file of a picture: its suffix says the format."""

import pytest
from matplotlib.figure import Figure

from zss_d2.analysis.commands import panel
from zss_d2.analysis.commands.pictures import SUFFIXES, check_picture, write_picture
from zss_d2.errors import ZssError

BEGINNINGS = {
    ".png": b"\x89PNG",
    ".pdf": b"%PDF",
    ".svg": b"<?xml",
    ".jpg": b"\xff\xd8",
    ".jpeg": b"\xff\xd8",
    ".webp": b"RIFF",
    ".tif": b"II*\0",
    ".tiff": b"II*\0",
}


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PDF"])
def test_a_picture_is_of_the_format_that_its_suffix_names(suffix, tmp_path, capsys):
    figure = Figure(figsize=(1, 1))
    figure.subplots().set_title("名 $x_1$")
    path = tmp_path / f"new/picture{suffix}"
    check_picture(path)
    write_picture(path, figure)
    assert path.read_bytes().startswith(BEGINNINGS[suffix.lower()])
    assert capsys.readouterr().out == f"picture written to {path}\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [("x.bmp", ".bmp is no format of pictures"), ("x", "the suffix is missing")],
)
def test_another_suffix_is_refused_before_any_work(name, problem, tmp_path, capsys):
    assert panel.main([str(tmp_path / "no_run"), "--output", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == (
        f"error: --output {tmp_path / name}: {problem}; end it in one of {', '.join(SUFFIXES)}\n"
    )


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ZssError, match="is a folder; give a file"):
        check_picture(tmp_path)
