"""`zss export`: the files, what they say, and that they run elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from zss_d2 import load_model
from zss_d2.exchange.export import command, exporting
from zss_d2.exchange.export.images import made_up_images
from zss_d2.exchange.export.metadata import from_texts
from zss_d2.exchange.export.program import LoadedProgram

needs_onnx = pytest.mark.onnx
SCRIPT = re.search(
    r"```python\n(\"\"\"python label.py.*?)```", (ROOT / "docs/deploy.md").read_text(), re.S
)[1]


def export(run: Path, output: Path, *options: object) -> Path:
    arguments = [str(run), "--output", str(output), *map(str, options)]
    assert command.main(arguments) == 0
    return output


@pytest.fixture(scope="module")
def student(make_run, tmp_path_factory) -> tuple[Path, Path]:
    """A run of a student, and its file."""
    run = make_run("CLIPZSS")
    output = tmp_path_factory.mktemp("export") / "student.onnx"
    return run, export(run, output, "--int8", "--classes", "dog", "horse", "sheep")


def session(path: Path):
    from zss_d2.exchange.export.onnx_file import OnnxSession

    return OnnxSession(path)


@needs_onnx
def test_a_file_says_what_it_is_and_nothing_of_this_machine(student):
    import onnx

    run, path = student
    about = from_texts(session(path).metadata)
    assert about["classes"] == ["dog", "horse", "sheep"]
    assert about["outputs"] == ["scores"]
    assert about["opset"] >= 18
    assert set(about["versions"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert about["checked"]["scores_within"] <= 1e-4
    assert about["checked"]["best_class_equal"] >= 0.999
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content
    model = onnx.load(path)
    onnx.checker.check_model(model)
    (image,), (scores,) = model.graph.input, model.graph.output
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (image, scores)
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 3, "height", "width"]]
    # The student and three embeddings, no text tower.
    network = load_model(run, device="cpu").segmentor.student
    weights = sum(x.numel() for x in network.parameters())
    constants = sum(int(np.prod(x.dims)) for x in model.graph.initializer)
    assert 0.9 * weights <= constants <= weights + 1000


@needs_onnx
def test_int8_is_smaller_and_gives_scores(student):
    _, path = student
    small = path.with_suffix(".int8.onnx")
    assert small.stat().st_size < path.stat().st_size
    file = session(small)
    assert from_texts(file.metadata)["int8"] is True
    assert "int8" not in session(path).metadata
    (pixels,) = made_up_images([(64, 96)])
    image = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    np.testing.assert_allclose(file({"image": image})["scores"].sum(axis=1), 1, atol=1e-5)


@needs_onnx
def test_the_script_of_the_docs_labels_a_photo_without_torch(student, tmp_path):
    run, path = student
    (pixels,) = made_up_images([(200, 331)])
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "label.py").write_text(SCRIPT)
    blocked = "import sys; sys.modules['torch'] = None; sys.argv[:] = sys.argv[1:]; "
    start = f"{blocked}import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    process = subprocess.run(
        [sys.executable, "-c", start, "label.py", str(path), "photo.png", "labels.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert re.search(r"^ *\d+\.\d %  (dog|horse|sheep)$", process.stdout, re.M)
    labels = np.asarray(Image.open(tmp_path / "labels.png"))
    expected = load_model(run, device="cpu").predict(pixels, ["dog", "horse", "sheep"])
    # Labels are enlarged there, scores here: borders differ.
    assert (labels == expected.labels).mean() >= 0.97
    assert len(SCRIPT.splitlines()) <= 45


@needs_onnx
def test_what_takes_one_size_only_says_so_and_takes_one(make_run, tmp_path, capsys):
    run, output = make_run("LDVC"), tmp_path / "ldvc.onnx"
    assert command.main([str(run), "--output", str(output)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: LDVC computes with the size of its images")
    assert "give --size" in line
    export(run, output, "--size", "90x112", "--argmax", "inside", "--classes", "dog", "sky")
    run_file = session(output)
    about = from_texts(run_file.metadata)
    assert (about["size"], about["outputs"]) == ([90, 112], ["labels", "confidence"])
    outputs = run_file({"image": np.zeros((3, 3, 90, 112), np.float32)})
    assert outputs["labels"].dtype == np.uint8
    assert outputs["labels"].shape == outputs["confidence"].shape == (3, 90, 112)
    assert [x.name for x in tmp_path.iterdir()] == ["ldvc.onnx"]


@needs_onnx
def test_embeddings_are_an_input_of_any_number(make_run, tmp_path, capsys):
    run, output = make_run("ZegCLIP"), tmp_path / "any.onnx"
    export(run, output, "--embeddings", "input", "--classes", "dog", "cat")
    assert "the same as the model" in capsys.readouterr().out
    other = tmp_path / "other.npz"
    names = ["zebra", "sky", "grass", "a red thing"]
    export(run, other, "--embeddings", "only", "--classes", *names)
    table = np.load(other)
    assert table["classes"].tolist() == names
    np.testing.assert_allclose(np.linalg.norm(table["embeddings"], axis=1), 1, rtol=1e-6)
    (pixels,) = made_up_images([(64, 96)])
    image = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    scores = session(output)({"image": image, "embeddings": table["embeddings"]})["scores"]
    expected = load_model(run, device="cpu").predict(pixels, names, size=0, class_scores=True)
    np.testing.assert_allclose(scores[0], expected.class_scores, atol=1e-4)
    assert np.load(tmp_path / "any.npz")["classes"].tolist() == ["dog", "cat"]


@needs_onnx
def test_a_program_of_torch(make_run, tmp_path, capsys):
    output = export(make_run("MaskCLIP"), tmp_path / "maskclip.pt2", "--resize", "outside")
    assert "the same as the model" in capsys.readouterr().out
    program = LoadedProgram(output)
    logits = program({"image": np.zeros((1, 3, 64, 96), np.float32)})["logits"]
    patch = program.metadata["multiple_of"]
    assert logits.shape == (1, 20, 64 // patch, 96 // patch)
    assert program.metadata["checked"]["scores_within"] <= 1e-4
    assert str(ROOT).encode() not in output.read_bytes()


@needs_onnx
def test_a_file_that_differs_is_not_written(student, tmp_path, monkeypatch, capsys):
    from zss_d2.exchange.export import onnx_file

    def damaged(program, settings):
        import onnx

        model = onnx.load(student[1])
        weight = max(model.graph.initializer, key=lambda x: len(x.raw_data))
        changed = 1.5 * onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
        return model

    monkeypatch.setattr(onnx_file, "to_onnx", damaged)
    monkeypatch.setattr(exporting.programs, "trace", lambda *_: None)
    output = tmp_path / "student.onnx"
    output.write_text("what was there")
    arguments = ["--output", str(output), "--classes", "dog", "horse", "sheep"]
    assert command.main([str(student[0]), *arguments]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {output} does not give what the model gives: scores within" in line
    assert output.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "a.txt"], "--output a.txt does not end in .onnx or .pt2"),
        (["--output", "a.onnx", "--format", "torch"], "--output a.onnx does not end in .pt2"),
        (["--output", "a.onnx", "--embeddings", "only"], "--embeddings only writes an npz"),
        (["--output", "a.onnx", "--size", "512x"], "'512x' is no size; give 512 or 384x512"),
        (["--output", "a.onnx", "--size", "16"], "16 is too small; give 32 or more"),
        (
            ["--output", "a.onnx", "--resize", "outside", "--argmax", "inside"],
            "--argmax inside needs --resize inside",
        ),
        (["--output", "a.pt2"], "no-run"),
        (["--output", "a.pt2", "--int8"], "--int8 is of ONNX files"),
        (["--output", "a.npz", "--embeddings", "only", "--int8"], "--int8 is of a network"),
        (["--output", "a.npz", "--embeddings", "only", "--size", "64"], "--size is of a network"),
    ],
)
def test_mistakes_are_one_line_before_any_work(options, message, capsys):
    assert command.main(["no-run", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert message in error


def test_a_missing_package_is_named(monkeypatch, capsys):
    found = importlib.util.find_spec
    specs = {"onnx": object(), "onnxscript": None, "onnxruntime": object()}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: specs[name] if name in specs else found(name)
    )
    assert command.main(["no-run", "--output", "a.onnx"]) == 2
    assert capsys.readouterr().err == (
        "error: zss export --format onnx needs onnxscript, which is not installed; "
        "pip install zss_d2[onnx]\n"
    )


@needs_onnx
def test_what_the_config_says_of_tests_and_the_file_lacks_is_said(make_run, tmp_path, capsys):
    run = make_run("CLIPZSS")
    opts = ["TEST.FLIP", "True", "TEST.SCALES", "(1.0,0.5)", "TEST.SEEN_BIAS", "0.1"]
    output = tmp_path / "a.pt2"
    export(run, output, "--resize", "outside", "--size", "64", "--opts", *opts)
    notes = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note: ")]
    assert notes == [
        f"note: TEST.{key} is not in the file; it is for the caller"
        for key in ("FLIP", "SCALES", "SEEN_BIAS")
    ]
    assert json.dumps(LoadedProgram(output).metadata["seen_bias"]) == "0.0"
