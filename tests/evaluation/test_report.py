"""The report: from finished runs to a page that needs nothing but itself."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from matplotlib.image import imread

from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.evaluation import report
from zss_d2.evaluation.counts import StoredCounts
from zss_d2.evaluation.document import (
    Cell,
    Heading,
    Paragraph,
    Picture,
    Table,
    to_html,
    to_markdown,
)
from zss_d2.evaluation.figures import class_bars, class_shares
from zss_d2.evaluation.run_files import read_runs, short_names


@pytest.fixture
def runs(toy_voc, make_cfg, tmp_path):
    """Two evaluated models of different weights; the first has a training history."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        cfg = make_cfg("OUTPUT_DIR", str(folder), "TEST.PREDICTIONS", "png")
        ZeroShotTrainer.test(cfg, ZeroShotTrainer.build_model(cfg).eval())
    lines = [
        {"iteration": 19, "total_loss": 9.0},
        {"iteration": 20, "sem_seg/hIoU": 2.0, "sem_seg/mIoU-S": 3.0, "sem_seg/mIoU-U": 1.0},
        {"iteration": 39, "total_loss": 5.0},
        {"iteration": 40, "sem_seg/hIoU": 4.0, "sem_seg/mIoU-S": 5.0, "sem_seg/mIoU-U": 3.0},
    ]
    (folders[0] / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    return folders


class Links(HTMLParser):
    """Everything that a page would load, and its tags."""

    def __init__(self):
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for key, value in attrs if key in ("src", "href")]


def test_two_runs_side_by_side(runs, tmp_path, capsys):
    output = tmp_path / "report"
    arguments = [*map(str, runs), "--output", str(output), "--resamples", "20"]
    assert report.main(arguments) == 0
    assert "report.html" in capsys.readouterr().out

    markdown = (output / "report.md").read_text()
    for folder in runs:
        metrics = json.loads((folder / "results.json").read_text())["zss_voc_val"]
        (row,) = re.findall(rf"^\| {folder.name} \(LDVC\) \|(.*)\|$", markdown, re.MULTILINE)
        shown = [re.search(r"[\d.]+", cell).group() for cell in row.split("|")]
        expected = [metrics[key] for key in ("pAcc", "mIoU", "mIoU-S", "mIoU-U", "hIoU")]
        assert shown[:5] == [f"{value:.1f}" for value in expected]
    assert "### Difference to first" in markdown
    assert "(unseen)" in markdown
    pictures = re.findall(r"\((report_pictures/.*?png)\)", markdown)
    assert {path.split("/")[1] for path in pictures} == {
        "zss_voc_val_classes.png",
        "zss_voc_val_confusion0.png",
        "zss_voc_val_confusion1.png",
        "zss_voc_val_pictures.png",
        "training.png",
    }
    for path in pictures:
        assert imread(output / path).shape[0] > 100

    page = Links()
    page.feed((output / "report.html").read_text())
    assert page.tags.count("img") == len(pictures)
    assert all(link.startswith("data:image/png;base64,") for link in page.loaded)
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_provenance_is_complete(runs):
    (table,) = [
        block for block in report.provenance_section(read_runs(runs)) if isinstance(block, Table)
    ]
    facts = {row[0].text: row[1].text for row in table.rows}
    provenance = json.loads((runs[0] / "results.json").read_text())["provenance"]
    assert facts["method"] == "LDVC"
    assert facts["torch"] == provenance["torch"]
    assert facts["config sha256"] == provenance["config_sha256"]
    assert facts["folder"] == runs[0].as_posix()
    assert any(name.startswith("protocol: ") for name in facts)


def test_a_run_without_predictions_or_images_still_gives_a_page(toy_voc, make_cfg, tmp_path):
    cfg = make_cfg("TEST.PER_IMAGE", False)
    ZeroShotTrainer.test(cfg, ZeroShotTrainer.build_model(cfg).eval())
    blocks = report.report(read_runs([tmp_path / "output"]), resamples=5)
    texts = [block.text for block in blocks if isinstance(block, Paragraph)]
    assert any("TEST.PREDICTIONS png" in text for text in texts)
    assert any("None of the runs was trained" in text for text in texts)


def test_missing_photos_do_not_cost_the_page(runs, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [])
    texts = [
        block.text
        for block in report.report(read_runs(runs), resamples=5)
        if isinstance(block, Paragraph)
    ]
    assert any("could not be read" in text for text in texts)


def test_bad_folders_are_named(runs, tmp_path, capsys):
    assert report.main([str(tmp_path / "nothing")]) == 2
    assert "nothing is no folder of a finished run" in capsys.readouterr().err
    assert report.main([str(runs[0]), str(runs[0])]) == 2
    assert "given twice" in capsys.readouterr().err
    (runs[1] / "results.json").write_text("{")
    assert report.main([str(runs[1])]) == 2
    assert "evaluate the run again" in capsys.readouterr().err
    (runs[0] / "metrics.json").write_text('{"iteration": 1')
    assert report.main([str(runs[0]), "--output", str(tmp_path / "r")]) == 2
    assert "metrics.json is damaged" in capsys.readouterr().err


def test_the_largest_confusions_are_shares_of_the_true_class():
    confusion = np.array([[50, 0, 30], [10, 5, 0], [0, 5, 70]])  # predicted x true
    counts = StoredCounts(confusion, ("a", "b", "c"), ("c",))
    assert report.largest_confusions(counts, 3) == [
        (1, 2, 0.5),
        (2, 0, pytest.approx(0.3)),
        (0, 1, pytest.approx(1 / 6)),
    ]
    np.testing.assert_allclose(class_shares(confusion).sum(axis=1), 1)
    assert np.isnan(class_shares(np.array([[1, 0], [0, 0]]))[1]).all()


def test_images_are_chosen_from_both_ends_and_the_middle_once_each():
    added = np.array([0.0, 5.0, -3.0, 1.0, 2.0, -1.0, 4.0])
    assert report.choose_images(added, 2) == [
        (1, "best"),
        (6, "best"),
        (4, "median"),
        (3, "median"),
        (5, "worst"),
        (2, "worst"),
    ]
    assert report.choose_images(np.array([1.0, 2.0]), 2) == [(1, "best"), (0, "best")]


def test_bars_show_unseen_classes_first_and_name_absent_ones():
    values = {"run": np.array([80.0, np.nan, 20.0, 90.0])}
    (axis,) = class_bars(values, ["a", "b", "u", "c"], [2], {"run": "red"}).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["u (unseen)", "c", "a", "b"]
    assert [text.get_text() for text in axis.texts] == ["absent"]
    assert [bar.get_width() for bar in axis.patches[:4]] == [20, 90, 80, 0]


def test_short_names_tell_runs_apart(tmp_path):
    folders = [tmp_path / "x/ldvc/seed0", tmp_path / "x/zegclip/seed0"]
    assert short_names(folders) == ["ldvc", "zegclip"]
    assert short_names([tmp_path / "ldvc/seed0"]) == ["ldvc/seed0"]


def test_text_is_escaped_in_both_formats():
    blocks = [
        Heading("a < b", 1),
        Paragraph("x & y"),
        Table(["name"], [[Cell("p|q <i>", "note", strong=True)]]),
        Picture("plot", b"png", "a <caption>", 100),
    ]
    page = to_html(blocks)
    assert "a &lt; b" in page
    assert "x &amp; y" in page
    assert "<strong>p|q &lt;i&gt;</strong>" in page
    assert "<i>" not in page
    assert "**p\\|q <i>** (note)" in to_markdown(blocks, "pictures")


def test_a_set_that_no_run_counted_is_an_error(runs):
    (runs[0] / "confusion_zss_voc_val.npz").unlink()
    with pytest.raises(ZssError, match="confusion_zss_voc_val.npz is missing"):
        report.report(read_runs(runs), resamples=5)
