"""The mini world: repeatable scenes, honest captions, disjoint splits, and their files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from zss_d2.config.defaults import add_zss_config
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.mini import CLASSES, STUFF, THINGS, VOID, caption, draw_scene
from zss_d2.data.synthetic.mini.banks import BANK_SIZES, bank
from zss_d2.data.synthetic.mini.canvas import SIZE, smooth_noise
from zss_d2.data.synthetic.mini.scene import MIN_VISIBLE_AREA, STREAMS, Plan, draw_plan
from zss_d2.data.synthetic.mini.textures import paint_class, pattern_mask
from zss_d2.data.synthetic.mini.vocabulary import COLOURS, PATTERNS, thing_parts
from zss_d2.data.synthetic.mini.write import scene_checksum

SCRIPT = Path(__file__).parents[3] / "datasets" / "prepare_mini.py"

# First 16 hex digits of `scene_checksum`. If they change on purpose, raise WORLD_VERSION: prepared
# data and the shipped CLIP weights belong to the pixels behind these numbers.
CHECKSUMS = {
    ("train", 0): "05e39d653efe73cd",
    ("train", 1): "f8d3b7ea1bce7602",
    ("train", 3999): "ffcac091303c98c6",
    ("dev", 0): "bebb5bf231444927",
    ("dev", 499): "3af5bfca780fbcf3",
    ("val", 0): "7d34cf8121ffd715",
    ("clip", 0): "5468cc85754ed679",
    ("probe", 0): "d41e6f7b91f1e1dd",
}


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene("train", index) for index in range(120)]


@pytest.fixture(scope="module")
def prepare_mini():
    """The module behind ``python datasets/prepare_mini.py``."""
    spec = importlib.util.spec_from_file_location("prepare_mini", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prepare(prepare_mini, tmp_path, monkeypatch, capsys):
    """Run the command line for a few scenes; gives (exit status, output, error stream)."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        sizes = ["--train", "6", "--dev", "2", "--val", "2", "--workers", "1"]
        capsys.readouterr()
        status = prepare_mini.run([*sizes, *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(("stream", "index"), CHECKSUMS)
def test_scenes_are_the_same_pixels_everywhere(stream, index):
    assert scene_checksum(stream, index)[:16] == CHECKSUMS[stream, index]


def test_scenes_differ_by_index_stream_and_seed():
    sums = {scene_checksum(stream, 0) for stream in STREAMS}
    assert len(sums | {scene_checksum("train", 1), scene_checksum("train", 0, seed=1)}) == 7


def test_a_scene_is_an_image_with_labels_of_the_same_size(scenes):
    for scene in scenes:
        assert (scene.image.shape, scene.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (scene.labels.shape, scene.labels.dtype) == ((SIZE, SIZE), np.uint8)


def test_captions_name_exactly_what_is_labelled(scenes):
    for scene in scenes:
        values, areas = np.unique(scene.labels[scene.labels != VOID], return_counts=True)
        assert areas.min() >= MIN_VISIBLE_AREA
        named = {i for i, name in enumerate(CLASSES) if name in scene.caption}
        assert named == set(values.tolist())


def test_captions_read_like_sentences():
    ids = [CLASSES.index(name) for name in ("red striped thing", "sand", "blue dotted thing")]
    assert caption(ids) == "a photo of a red striped thing and a blue dotted thing on sand"
    assert caption(ids[1:2]) == "a photo of sand"


def test_a_hidden_thing_is_neither_labelled_nor_named():
    """Many things on one canvas: some are covered by the later ones."""
    plan = Plan(things=tuple(range(len(THINGS))), stuff=(len(THINGS),))
    scene = draw_plan(plan, "train", np.random.default_rng(0))
    assert len(scene.classes) < len(THINGS)
    assert set(np.unique(scene.labels)) - {VOID} == set(scene.classes)


def test_clutter_and_borders_are_void_though_nothing_there_is_unseen():
    grass = CLASSES.index("grass")
    red = CLASSES.index("red plain thing")
    bare, cluttered = (
        draw_plan(Plan((red,), (grass,), clutter), "train", np.random.default_rng(3)).labels
        for clutter in (False, True)
    )
    assert 0 < (bare == VOID).mean() < 0.1
    thing = np.pad(bare == red, 1)
    touched = thing[:-2, 1:-1] | thing[2:, 1:-1] | thing[1:-1, :-2] | thing[1:-1, 2:]
    assert (bare[touched & (bare != red)] == VOID).all()
    assert (cluttered == VOID).sum() > (bare == VOID).sum() + 50


def test_scenes_hold_everything_that_they_should(scenes):
    """1 to 3 things, one or two kinds of stuff, void, and unseen classes too."""
    present = {i for scene in scenes for i in scene.classes}
    assert present >= set(load_benchmark("mini").unseen_ids)
    kinds = {sum(i >= len(THINGS) for i in scene.classes) for scene in scenes}
    assert kinds == {1, 2}
    assert max(sum(i < len(THINGS) for i in scene.classes) for scene in scenes) == 3
    void = np.mean([(scene.labels == VOID).mean() for scene in scenes])
    assert 0.02 < void < 0.15


def test_texture_banks_are_disjoint():
    for class_id in range(len(CLASSES)):
        variants = [variant for name in BANK_SIZES for variant in bank(name, class_id)]
        assert len(variants) == len(set(variants)) == sum(BANK_SIZES.values())


def test_clip_shares_the_training_bank_and_no_seed():
    assert STREAMS["clip"][0] == STREAMS["train"][0] == "train"
    assert {STREAMS[name][0] for name in ("dev", "probe")} == {"dev"}
    seeds = [seed for _, seed in STREAMS.values()]
    assert len(seeds) == len(set(seeds))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_cover_a_part_of_the_surface(pattern):
    covered = pattern_mask(np.random.default_rng(0), pattern, bank("train", 0)[0]).mean()
    assert covered == 0 if pattern == "plain" else 0.15 < covered < 0.75


@pytest.mark.parametrize("class_id", range(len(CLASSES)))
def test_every_class_can_be_painted(class_id):
    paint = paint_class(np.random.default_rng(1), class_id, bank("val", class_id)[0])
    assert paint.shape == (SIZE, SIZE, 3)
    assert np.issubdtype(paint.dtype, np.integer)


def test_smooth_noise_is_smooth_and_bounded():
    rng = np.random.default_rng(0)
    rough, smooth = smooth_noise(rng, 1, 1), smooth_noise(rng, 24, 24)
    assert max(np.abs(rough).max(), np.abs(smooth).max()) <= 128
    assert np.abs(np.diff(smooth, axis=0)).max() <= 11 < np.abs(np.diff(rough, axis=0)).max()


def test_the_spec_lists_the_world_and_unseen_things_recombine_seen_parts():
    spec = load_benchmark("mini")
    assert spec.classes == CLASSES
    unseen = [i for i in spec.unseen_ids if i < len(THINGS)]
    assert (len(unseen), len(spec.unseen_ids) - len(unseen)) == (6, 3)
    seen = [thing_parts(i) for i in spec.seen_ids if i < len(THINGS)]
    assert {colour for colour, _ in seen} == set(COLOURS)
    assert {pattern for _, pattern in seen} == set(PATTERNS)
    assert len(THINGS) + len(STUFF) == len(CLASSES)


def test_prepared_files_are_the_scenes(prepare, tmp_path):
    status, out, err = prepare()
    assert status == 0
    assert "train: 6 written, 0 were there" in out
    root = tmp_path / "zss" / "mini"
    for split, count in (("train", 6), ("dev", 2), ("val", 2)):
        for index in range(count):
            scene = draw_scene(split, index)
            name = f"{split}_{index:05d}.png"
            image = np.asarray(Image.open(root / "images" / split / name))
            labels = np.asarray(Image.open(root / "annotations" / split / name))
            assert np.array_equal(image, scene.image)
            assert np.array_equal(labels, scene.labels)


def test_a_second_run_writes_only_what_is_missing_or_cut(prepare, tmp_path):
    prepare()
    root = tmp_path / "zss" / "mini"
    files = {path: path.read_bytes() for path in sorted(root.rglob("*.png"))}
    times = {path: path.stat().st_mtime_ns for path in files}
    cut, *kept, lost = files
    cut.write_bytes(b"")
    lost.unlink()
    status, out, _ = prepare()
    assert status == 0
    assert "dev: 1 written, 1 were there" in out
    assert {path: path.read_bytes() for path in files} == files
    rewritten = {path.name for path in kept if path.stat().st_mtime_ns != times[path]}
    assert rewritten == {cut.name, lost.name}  # the partners of the two
    assert not list(root.rglob("*.tmp"))


def test_another_world_is_not_mixed_in(prepare, tmp_path):
    prepare()
    status, _, err = prepare("--seed", "1")
    assert status == 2
    assert "world.json: the folder holds another world" in err
    stamp = tmp_path / "zss" / "mini" / "world.json"
    assert json.loads(stamp.read_text())["seed"] == 0
    stamp.write_text("{")
    assert prepare()[0] == 2
    stamp.unlink()
    assert "no record of its origin" in prepare()[2]


def test_check_finds_bad_labels(prepare, tmp_path):
    prepare()
    assert prepare("--check")[0] == 0
    path = tmp_path / "zss" / "mini" / "annotations" / "dev" / "dev_00000.png"
    Image.fromarray(np.full((SIZE, SIZE), 99, np.uint8)).save(path)
    status, _, err = prepare("--check")
    assert status == 2
    assert f"{path}: value 99" in err


def test_surplus_scenes_are_pointed_out(prepare):
    prepare()
    status, out, _ = prepare("--train", "4")
    assert (status, "also holds 2 (train_00004, train_00005)" in out) == (0, True)


def test_training_targets_hide_unseen_labels_while_their_pixels_stay(prepare):
    """As in real zero-shot training: unseen objects are in the photos, their labels are not."""
    prepare("--train", "40")
    records = DatasetCatalog.get("zss_mini_train")
    metadata = MetadataCatalog.get("zss_mini_train")
    unseen = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
    raw = [np.asarray(Image.open(record["sem_seg_file_name"])) for record in records]
    assert any(np.isin(labels, unseen).any() for labels in raw)
    cfg = get_cfg()
    add_zss_config(cfg)
    mapper = ZeroShotMapper(is_train=True, augmentations=[], image_format=cfg.INPUT.FORMAT)
    for record, labels in zip(records, raw, strict=True):
        target = mapper(record)["sem_seg"].numpy()
        hidden = np.isin(labels, unseen)
        assert (target[hidden] == VOID).all()
        assert np.array_equal(target[~hidden], labels[~hidden])
