"""``zss drift`` on runs: files, tables, groups, and runs that it cannot compare."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from matplotlib.image import imread

from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.test_maskclip import OVERRIDES as MASKCLIP
from zss_d2.analysis.commands.drift import main
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer

METHODS = {
    "zegclip": ("MODEL.META_ARCHITECTURE", "ZegCLIP", "MODEL.ZEGCLIP.NUM_LAYERS", 2),
    "ldvc": ("MODEL.META_ARCHITECTURE", "LDVC"),
    "maskclip": MASKCLIP,
    "clip_zss": TINY,
}


@pytest.fixture
def save_run(toy_voc, make_cfg, tmp_path):
    """Save an untrained run and return its folder."""

    def save(place: str, method: str, *overrides: object) -> Path:
        folder = tmp_path / place
        cfg = make_cfg("OUTPUT_DIR", str(folder), *METHODS[method], *overrides)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(cfg.dump())
        if method != "maskclip":
            ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(folder)).save("model_final")
        return folder

    return save


def drift(folders: list[Path], output: Path, *options: str) -> dict:
    command = [*map(str, folders), "--output", str(output), "--images", "2", "--share", "0.5"]
    assert main([*command, *options]) == 0
    return json.loads((output / "drift.json").read_text())


def test_every_method_has_its_lines(save_run, tmp_path, capsys):
    output = tmp_path / "out"
    found = drift([save_run(name, name) for name in METHODS], output)
    printed = capsys.readouterr().out
    assert (output / "drift.md").read_text() in printed
    tokens, queries = printed.split("Class embeddings that entered")
    for name, stages in (
        ("zegclip", ["before the decoder", "layer 1", "layer 2"]),
        ("ldvc", ["before the decoder", "layer 1", "layer 2"]),
        ("maskclip", ["CLIP's tokens"]),
        ("clip_zss", ["student's features"]),
    ):
        lines = [x.split("|") for x in tokens.splitlines() if x.startswith(f"| {name} ")]
        assert [x[3].strip() for x in lines] == stages
        assert list(found["groups"][name]["tokens"]) == stages
    changed = [x.split("|")[1].strip() for x in queries.splitlines() if "| layer" in x]
    assert changed == ["zegclip"]
    entered = found["groups"]["zegclip"]["queries"]["before the decoder"]["unseen"]["to entered"]
    assert entered == {"value": pytest.approx(1), "half": None, "runs": 1}
    run = found["runs"]["ldvc"]
    assert 0 < run["tokens with a class"] <= 1
    assert run["classes"]["sheep"]["seen"] is False
    height, width = imread(output / "drift.png").shape[:2]
    assert height > 2000
    assert width > 1000


def test_seeds_are_one_line_with_an_interval(save_run, tmp_path, capsys):
    runs = [
        save_run(f"a/{name}/seed{i}", name, "SEED", i)
        for name in ("ldvc", "maskclip")
        for i in (0, 1)
    ]
    found = drift(runs, tmp_path / "out")
    assert set(found["groups"]) == {"ldvc", "maskclip"}
    assert set(found["runs"]) == {"ldvc/seed0", "ldvc/seed1", "maskclip/seed0", "maskclip/seed1"}
    values = [
        found["runs"][f"ldvc/seed{i}"]["means"]["tokens"]["layer 1"]["seen"]["own"] for i in (0, 1)
    ]
    mean = found["groups"]["ldvc"]["tokens"]["layer 1"]["seen"]["own"]
    assert mean["value"] == pytest.approx(sum(values) / 2)
    assert mean["half"] == pytest.approx(12.706 * abs(values[0] - values[1]) / 2, rel=1e-3)
    assert " ± " in capsys.readouterr().out


def test_an_empty_test_set_is_refused(save_run, tmp_path, capsys, monkeypatch):
    run = save_run("run", "ldvc")
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [])
    assert main([str(run), "--output", str(tmp_path / "out")]) == 2
    assert "zss_voc_val holds no image" in capsys.readouterr().err
