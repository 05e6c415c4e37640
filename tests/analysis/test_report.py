"""The report: from finished runs to a page that needs nothing but itself."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from matplotlib.image import imread

from zss_d2.analysis.commands.report import main
from zss_d2.analysis.names import config_names, short_names
from zss_d2.analysis.report import content
from zss_d2.analysis.report.document import (
    Cell,
    Heading,
    Paragraph,
    Picture,
    Table,
    drawn,
    picture_files,
    to_html,
    to_markdown,
)
from zss_d2.analysis.report.figures import class_bars, class_shares, training_curves
from zss_d2.analysis.report.pictures import choose_images
from zss_d2.analysis.run_folder import RunFolder, finished_runs
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import StoredCounts, counts_file, read_counts, write_counts


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


@pytest.fixture
def own_run(make_cfg, tmp_path, monkeypatch):
    """A run on a custom dataset, trained where its relative paths start; nothing is registered."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    description = toy_custom.generate(tmp_path / "yard")
    content = yaml.safe_load(description.read_text())
    content |= {"classes": [r"$\frac$", "_a", "grass|lawn", "猫 <b>"], "unseen": ["_a"]}
    description.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    cfg = make_cfg(
        *("DATASETS.CUSTOM", ("yard/yard.yaml",), "DATASETS.TRAIN", ("zss_yard_train",)),
        *("DATASETS.TEST", ("zss_yard_val",), "OUTPUT_DIR", "output/$own$"),
        *("TEST.PREDICTIONS", "png"),
    )
    register_custom(cfg.DATASETS.CUSTOM)
    ZeroShotTrainer.test(cfg, ZeroShotTrainer.build_model(cfg).eval())
    folder = tmp_path / "output/$own$"
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    for name in ("zss_yard_train", "zss_yard_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    monkeypatch.chdir(tmp_path.parent)
    return folder


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
    assert main(arguments) == 0
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
        block
        for block in content.provenance_section(finished_runs(runs))
        if isinstance(block, Table)
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
    blocks = content.page(finished_runs([tmp_path / "output"]), resamples=5)
    texts = [block.text for block in blocks if isinstance(block, Paragraph)]
    assert any("TEST.PREDICTIONS png" in text for text in texts)
    assert any("None of the runs was trained" in text for text in texts)


def test_shapes_are_shown_and_runs_without_are_named(runs, tmp_path):
    content = json.loads((runs[1] / "results.json").read_text())
    kept = {key: x for key, x in content["zss_voc_val"].items() if not key.startswith("pieces")}
    (runs[1] / "results.json").write_text(json.dumps(content | {"zss_voc_val": kept}))
    assert main([*map(str, runs), "--output", str(tmp_path / "out"), "--resamples", "5"]) == 0
    markdown = (tmp_path / "out/report.md").read_text("utf-8")
    pieces = json.loads((runs[0] / "results.json").read_text())["zss_voc_val"]["pieces-U"]
    rows = [line for line in markdown.splitlines() if line.startswith("| first (unseen) |")]
    assert f"| {pieces:.2f} |" in rows[0]
    assert "second (unseen)" not in markdown
    assert "Not measured, zss fragments does it: second." in markdown


def test_missing_images_do_not_cost_the_page(runs, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [])
    texts = [
        block.text
        for block in content.page(finished_runs(runs), resamples=5)
        if isinstance(block, Paragraph)
    ]
    assert any("could not be read" in text for text in texts)


def test_bad_folders_are_named(runs, tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "nothing is no folder of a finished run" in capsys.readouterr().err
    assert main([str(runs[0]), str(runs[0])]) == 2
    assert "given twice" in capsys.readouterr().err
    (runs[1] / "results.json").write_text("{")
    assert main([str(runs[1])]) == 2
    assert "evaluate the run again" in capsys.readouterr().err
    (runs[0] / "metrics.json").write_text('{"iteration": 1')
    assert main([str(runs[0]), "--output", str(tmp_path / "r")]) == 2
    assert "metrics.json is damaged" in capsys.readouterr().err


def test_the_largest_confusions_are_shares_of_the_true_class():
    confusion = np.array([[50, 0, 30], [10, 5, 0], [0, 5, 70]])  # predicted x true
    counts = StoredCounts(confusion, ("a", "b", "c"), ("c",))
    assert content.largest_confusions(counts, 3) == [
        (1, 2, 0.5),
        (2, 0, pytest.approx(0.3)),
        (0, 1, pytest.approx(1 / 6)),
    ]
    np.testing.assert_allclose(class_shares(confusion).sum(axis=1), 1)
    assert np.isnan(class_shares(np.array([[1, 0], [0, 0]]))[1]).all()


def test_images_are_chosen_from_both_ends_and_the_middle_once_each():
    added = np.array([0.0, 5.0, -3.0, 1.0, 2.0, -1.0, 4.0])
    assert choose_images(added, 2) == [
        (1, "best"),
        (6, "best"),
        (4, "median"),
        (3, "median"),
        (5, "worst"),
        (2, "worst"),
    ]
    assert choose_images(np.array([1.0, 2.0]), 2) == [(1, "best"), (0, "best")]


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
    assert "**p\\|q \\<i>** (note)" in to_markdown(blocks, "pictures")


def test_a_set_that_no_run_counted_is_an_error(runs):
    (runs[0] / "confusion_zss_voc_val.npz").unlink()
    with pytest.raises(ZssError, match="confusion_zss_voc_val.npz is missing"):
        content.page(finished_runs(runs), resamples=5)


def test_own_data_is_registered_and_shown_whatever_its_classes_are_called(own_run, tmp_path):
    output = tmp_path / "report"
    assert main([str(own_run), "--output", str(output), "--resamples", "5"]) == 0
    assert (output / "report_pictures/zss_yard_val_pictures.png").is_file()
    markdown = (output / "report.md").read_text("utf-8")
    assert "could not" not in markdown
    tables = re.findall(r"(?:^\|.*\|\n)+", markdown, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        cells = [len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(cells)) == 1
    assert "\\$\\\\frac\\$" in markdown
    assert "grass\\|lawn" in markdown
    assert "<b>" not in (output / "report.html").read_text("utf-8")


SCRIPT = "<script>alert(1)</script>"


def test_no_name_or_setting_becomes_markup(runs, tmp_path, monkeypatch):
    """Of classes, runs, files, data sets, methods, versions, settings and errors."""
    folder = tmp_path / "<script>alert(2)<b>"
    runs[0].rename(folder)
    name = f"zss_{SCRIPT.replace('/', '')}_val"
    content = json.loads((folder / "results.json").read_text())
    content[name] = content.pop("zss_voc_val")
    content["provenance"] |= {"method": SCRIPT, "commit": SCRIPT, "checkpoint": SCRIPT}
    content["provenance"]["protocol"] |= {"setting": SCRIPT, SCRIPT: [SCRIPT, {SCRIPT: SCRIPT}]}
    (folder / "results.json").write_text(json.dumps(content))
    stored = read_counts(counts_file(folder, "zss_voc_val"))
    classes = (SCRIPT, *(f"<script src='x{i}'>" for i in range(19)))
    images = dataclasses.replace(
        stored.images, keys=tuple(f"<script>{key}" for key in stored.images.keys)
    )
    unseen = tuple(classes[i] for i in stored.unseen_ids)
    counts = StoredCounts(stored.confusion, classes, unseen, images)
    write_counts(counts_file(folder, name), counts)
    predictions = folder / "predictions" / name
    predictions.mkdir(parents=True)
    (predictions / f"{images.keys[0]}.png").write_bytes(b"")
    metadata = MetadataCatalog.get(name)
    metadata.set(stuff_classes=classes, unseen_classes=unseen, ignore_label=255)
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [])
    curve = {"iteration": 1, f"{SCRIPT}/sem_seg/hIoU": 1.0, "total_loss": 2.0}
    lines = [curve, {**curve, "iteration": 2}]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))

    assert main([str(folder), "--output", str(tmp_path / "page"), "--resamples", "5"]) == 0
    text = (tmp_path / "page/report.html").read_text("utf-8")
    page = Links()
    page.feed(text)
    assert "script" not in page.tags
    assert all(link.startswith("data:image/png;base64,") for link in page.loaded)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "holds no image &lt;script&gt;" in text
    markdown = (tmp_path / "page/report.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<", markdown)
    assert {path.parent for path in (tmp_path / "page").rglob("*.png")} == {
        tmp_path / "page/report_pictures"
    }


def test_own_data_that_is_gone_is_named(own_run, tmp_path):
    (tmp_path / "yard").rename(tmp_path / "moved")
    texts = [x.text for x in content.page(finished_runs([own_run]), 5) if isinstance(x, Paragraph)]
    (text,) = [text for text in texts if "could not be registered" in text]
    assert "yard/yard.yaml" in text


def test_own_data_with_other_classes_is_not_shown(own_run, tmp_path):
    path = tmp_path / "yard/yard.yaml"
    path.write_text(path.read_text("utf-8").replace("grass|lawn", "grass"), "utf-8")
    texts = [x.text for x in content.page(finished_runs([own_run]), 5) if isinstance(x, Paragraph)]
    assert any("zss_yard_val has other classes now" in text for text in texts)


def test_a_description_is_found_from_where_the_training_ran(tmp_path, monkeypatch):
    folder = tmp_path / "project/output/run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("DATASETS: {CUSTOM: [own/yard.yaml, gone.yaml]}")
    (tmp_path / "project/own").mkdir()
    (tmp_path / "project/own/yard.yaml").write_text("name: yard")
    monkeypatch.chdir(tmp_path)
    found, gone = RunFolder(folder).custom_descriptions()
    assert found.resolve() == tmp_path / "project/own/yard.yaml"
    assert str(gone) == "gone.yaml"
    assert RunFolder(tmp_path).custom_descriptions() == []
    (folder / "config.yaml").write_text("DATASETS: {CUSTOM: [")
    with pytest.raises(ZssError, match="config.yaml: line .: invalid yaml"):
        RunFolder(folder).custom_descriptions()


def test_results_from_the_midst_of_a_training_say_so(runs, capsys):
    """Not those whose training is over, or whose weights came from elsewhere."""
    for folder in runs:
        (folder / "config.yaml").write_text(yaml.safe_dump({"SOLVER": {"MAX_ITER": 40}}))
        results = json.loads((folder / "results.json").read_text())
        results["provenance"]["iteration"] = 20
        (folder / "results.json").write_text(json.dumps(results))
    first, second = finished_runs(runs)  # the second one has no metrics.json
    words = "results of iteration 20, of a training of 40"
    assert (first.incomplete, second.incomplete) == (words, "")
    assert capsys.readouterr().err == f"note: {runs[0]}: {words}\n"
    texts = [x.text for x in content.page([first, second], 5) if isinstance(x, Paragraph)]
    assert [text for text in texts if words in text] == [f"first: {words}."]
    (runs[0] / "config.yaml").write_text(yaml.safe_dump({"SOLVER": {"MAX_ITER": 20}}))
    assert finished_runs(runs)[0].incomplete == ""


def test_the_rule_of_others_is_reported_where_it_differs(runs):
    def texts() -> list[str]:
        blocks = content.page(finished_runs(runs), resamples=5)
        return [x.text for x in blocks if isinstance(x, Paragraph) and "ZegFormer" in x.text]

    for folder in runs:
        path = counts_file(folder, "zss_voc_val")
        stored = read_counts(path)
        confusion = np.diag(np.arange(20) % 7 + 1)
        if folder is runs[1]:
            confusion[3, 3], confusion[3, 4] = 0, 2  # class 3 is predicted only
        write_counts(path, dataclasses.replace(stored, confusion=confusion))
    (text,) = texts()
    assert text.startswith("second: ")


def test_curves_of_every_test_set_and_the_last_of_repeated_iterations(runs):
    lines = [
        {"iteration": 20, "a/sem_seg/hIoU": 1.0, "b/sem_seg/hIoU": 5.0, "total_loss": 9.0},
        {"iteration": 40, "a/sem_seg/hIoU": 2.0, "b/sem_seg/hIoU": 6.0, "total_loss": 7.0},
        {"iteration": 40, "a/sem_seg/hIoU": 3.0, "b/sem_seg/hIoU": 7.0, "total_loss": 8.0},
    ]
    assert content._curve(lines, "a/sem_seg/hIoU") == ((20, 40), (1.0, 3.0))
    (runs[0] / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    seen = {}

    def keep(losses, metrics, colours):
        seen.update(losses=losses, metrics=metrics)
        return training_curves(losses, metrics, colours)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "training_curves", keep)
        list(content.training_section(finished_runs(runs)))
    assert seen["losses"] == {"first": ((20, 40), (9.0, 8.0))}
    curves = {title: curve["first"][1] for title, curve in seen["metrics"].items()}
    assert curves == {"a hIoU": (1.0, 3.0), "b hIoU": (5.0, 7.0)}


def test_names_of_files_are_told_apart_by_their_folders(tmp_path):
    files = [tmp_path / x for x in ("a/ldvc.yaml", "b/ldvc.yaml", "b/zegclip.yaml")]
    assert config_names(files) == ["a/ldvc", "b/ldvc", "b/zegclip"]
    assert config_names(files[1:]) == ["ldvc", "zegclip"]


def test_pictures_of_sets_of_any_name_have_files_of_their_own():
    figure = Figure(figsize=(1, 1))
    names = ["a/b", "a b", "a_b", "a=2f=b"]
    blocks = [drawn(name, figure, "caption") for name in names]
    files = picture_files(blocks)
    assert len(files) == 4
    assert all(re.fullmatch(r"[\w.=-]+", name) for name in files)
    with pytest.raises(ValueError, match="one name"):
        picture_files([blocks[0], blocks[0]])
