"""What weights stand for travels with them: classes, sentences and CLIP of every checkpoint."""

from __future__ import annotations

import itertools
import logging
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.method_tester import batch
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError

# The CLIP of the mini world comes with the package, in two trainings.
MINI_CLIP = ("MODEL.CLIP.NAME", "mini", "MODEL.CLIP.PRETRAINED", "seed0")
STUDENT = (*TINY, *MINI_CLIP, "MODEL.CLIP.TEMPLATES", ["a photo of a {}."])
ZEGCLIP = ("MODEL.META_ARCHITECTURE", "ZegCLIP")
NAMES = ("wood", "grass", "lava")


@pytest.fixture
def own_classes(tmp_path, make_cfg):
    """``own_classes(names, *overrides)``: training on those classes, the last of them unseen."""
    number = itertools.count()

    def make(names: tuple[str, ...], *overrides: object) -> CfgNode:
        name = f"own{next(number)}"
        description = Path(toy_custom.generate(tmp_path / name))
        content = yaml.safe_load(description.read_text()) | {"name": name, "things": []}
        content |= {"classes": list(names), "unseen": [names[-1]]}
        description.write_text(yaml.safe_dump(content))
        register_custom([description])
        sets = ("DATASETS.TRAIN", (f"zss_{name}_train",), "DATASETS.TEST", ())
        return make_cfg(*STUDENT, *sets, *overrides)

    return make


def saved(model: nn.Module, folder: Path) -> str:
    ZeroShotCheckpointer(model, str(folder)).save("weights")
    return str(folder / "weights.pth")


def loaded(cfg: CfgNode, path: str) -> nn.Module:
    model = build_model(cfg).eval()
    ZeroShotCheckpointer(model).load(path)
    return model


@pytest.mark.parametrize("teacher", [True, False])
def test_rows_of_the_text_table_go_with_their_class_names(own_classes, tmp_path, teacher):
    model = build_model(own_classes(NAMES)).eval()
    path = saved(model, tmp_path)
    permuted = (NAMES[1], NAMES[0], NAMES[2])
    other = loaded(own_classes(permuted, "MODEL.CLIP_ZSS.TEACHER", teacher), path)
    assert other.classes == permuted
    assert torch.equal(other.classifier(NAMES), model.classifier(NAMES))
    (item,) = batch((64, 64))
    expected, got = (m([item])[0]["sem_seg"] for m in (model, other))
    assert torch.equal(got, expected[[1, 0, 2]])


def test_a_class_that_the_checkpoint_lacks_is_embedded_or_named(own_classes, tmp_path):
    path = saved(build_model(own_classes(NAMES)), tmp_path)
    names = ("wood", "water", "lava")
    fresh = build_model(own_classes(names))
    other = loaded(own_classes(names), path)
    assert torch.equal(other.classifier.embeddings, fresh.classifier.embeddings)
    with pytest.raises(
        ZssError, match="no text embedding of 1 classes, such as 'water'.*DATASETS.TRAIN"
    ):
        loaded(own_classes(names, "MODEL.CLIP_ZSS.TEACHER", False), path)


@pytest.mark.parametrize("teacher", [True, False])
def test_other_sentences_are_refused(own_classes, tmp_path, teacher):
    path = saved(build_model(own_classes(NAMES)), tmp_path)
    others = ("MODEL.CLIP.TEMPLATES", ["{}"], "MODEL.CLIP_ZSS.TEACHER", teacher)
    with pytest.raises(
        ZssError, match=r"weights.pth: .*'a photo of a \{\}.'.*\['\{\}'\].*TEMPLATES"
    ):
        loaded(own_classes(NAMES, *others), path)


def test_text_of_another_clip_is_refused(own_classes, tmp_path):
    path = saved(build_model(own_classes(NAMES)), tmp_path)
    with pytest.raises(
        ZssError, match="'seed0' of CLIP mini, and 'seed1' .* MODEL.CLIP.PRETRAINED"
    ):
        loaded(own_classes(NAMES, "MODEL.CLIP.PRETRAINED", "seed1"), path)


def test_new_words_beside_a_checkpoint_must_come_from_its_clip(own_classes, tmp_path):
    """Without a teacher the text tower is built as late as a new word is asked for."""
    path = saved(build_model(own_classes(NAMES)), tmp_path)
    without = ("MODEL.CLIP_ZSS.TEACHER", False, "MODEL.CLIP.PRETRAINED")
    (item,) = batch((64, 64))
    item["vocabulary"] = ("wood", "water")
    loaded(own_classes(NAMES, *without, "seed0"), path)([item])
    with pytest.raises(ZssError, match="'seed0' of CLIP mini, and 'seed1'"):
        loaded(own_classes(NAMES, *without, "seed1"), path)([item])


def test_text_of_another_clip_stays_refused(own_classes, tmp_path):
    """The tower that was built to find out must not stay."""
    path = saved(build_model(own_classes(NAMES)), tmp_path)
    seed1 = ("MODEL.CLIP_ZSS.TEACHER", False, "MODEL.CLIP.PRETRAINED", "seed1")
    (item,) = batch((64, 64))
    item["vocabulary"] = ("wood", "water")
    model = loaded(own_classes(NAMES, *seed1), path)
    for _ in range(2):
        with pytest.raises(ZssError, match="'seed0' of CLIP mini, and 'seed1'"):
            model([item])


@pytest.mark.parametrize("method", ["LDVC", "CLIPZSS"])
def test_the_other_activation_is_refused(make_cfg, tmp_path, method):
    base = TINY if method == "CLIPZSS" else ()
    key = "MODEL.CLIP.QUICK_GELU"
    path = saved(build_model(make_cfg(*base, key, "true")), tmp_path)
    with pytest.raises(ZssError, match="under QuickGELU, .* with GELU; set .*QUICK_GELU true"):
        loaded(make_cfg(*base, key, "false"), path)
    loaded(make_cfg(*base, key, "true"), path)


def test_other_sentences_of_a_method_with_both_towers_are_said(make_cfg, tmp_path, caplog):
    path = saved(build_model(make_cfg()), tmp_path)
    with caplog.at_level(logging.WARNING):
        loaded(make_cfg(), path)
        assert "sentences" not in caplog.text
        loaded(make_cfg("MODEL.CLIP.TEMPLATES", ["{}"]), path)
    assert "trained with the sentences ['a photo of a {}.'], here they are ['{}']" in caplog.text


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        ((), "MODEL.CLIP.DENSE_TOKENS", "value"),
        ((), "MODEL.CLIP.FEATURE_LAYERS", [0]),
        ((), "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]),
        ((), "MODEL.LOSS.NAME", "softmax"),
        ((), "MODEL.LDVC.NUM_HEADS", 2),
        ((), "MODEL.LDVC.NORM", "post"),
        ((), "MODEL.LDVC.ORDER", ["cross", "route", "ffn"]),
        ((), "MODEL.LDVC.ROUTE_WINDOWS", 3),
        ((), "MODEL.LDVC.ROUTE_TOPK", 2),
        (ZEGCLIP, "MODEL.LOSS.NAME", "softmax"),
        (ZEGCLIP, "MODEL.ZEGCLIP.NUM_HEADS", 2),
        (TINY, "MODEL.CLIP_ZSS.ALPHA", 5.0),
        (TINY, "MODEL.CLIP_ZSS.STATISTICS", "clip"),
    ],
)
def test_settings_that_weights_rely_on_are_said(make_cfg, tmp_path, caplog, base, key, value):
    path = saved(build_model(make_cfg(*base)), tmp_path)
    std = ("MODEL.PIXEL_STD", [4.0, 5.0, 6.0]) if key.endswith("MEAN") else ()
    loaded(make_cfg(*base, key, value, *std), path)
    name = "MODEL.PIXEL_MEAN" if key.endswith("STATISTICS") else key
    assert f"The checkpoint was trained with {name} " in caplog.text


def test_labels_of_classes_that_count_as_unseen_are_said(make_cfg, tmp_path, caplog):
    path = saved(build_model(make_cfg("ZERO_SHOT.SETTING", "supervised")), tmp_path)
    loaded(make_cfg(), path)
    assert "trained with labels of 5 classes that are unseen here" in caplog.text


def identity_of(model: nn.Module, folder: Path, **changes: object) -> str:
    """A checkpoint of the model that says something else of itself; None: nothing at all."""
    identity = model.identity() | changes
    identity = {key: value for key, value in identity.items() if value is not None}
    path = folder / "changed.pth"
    torch.save({"model": model.state_dict(), "identity": identity}, path)
    return str(path)


def test_names_without_labels_are_no_leak_of_labels_but_said(make_cfg, tmp_path, caplog):
    """A transductive checkpoint, tested as an inductive one."""
    model = build_model(make_cfg())
    loaded(make_cfg(), identity_of(model, tmp_path, train_classes=list(model.classes)))
    assert "with the names, though not the labels, of 5 classes that are unseen" in caplog.text
    assert "trained with labels" not in caplog.text


def test_labels_of_a_transductive_checkpoint_count_as_hidden(make_cfg, tmp_path):
    model = build_model(make_cfg())
    path = identity_of(model, tmp_path, train_classes=list(model.classes))
    with pytest.raises(ZssError, match="without labels of 5 classes"):
        loaded(make_cfg("ZERO_SHOT.SETTING", "supervised"), path).require_setting()


def test_a_checkpoint_from_before_labelled_classes_is_read_as_it_was_meant(
    make_cfg, tmp_path, caplog
):
    seen, everything = (
        build_model(make_cfg("ZERO_SHOT.SETTING", setting))
        for setting in ("inductive", "supervised")
    )
    other = loaded(make_cfg(), identity_of(seen, tmp_path, labelled_classes=None))
    assert "unseen here" not in caplog.text
    assert other.identity()["origins"] == []  # it is the very run that goes on
    loaded(make_cfg(), identity_of(everything, tmp_path, labelled_classes=None))
    assert "trained with labels of 5 classes that are unseen here" in caplog.text


def trained_on(cfg: CfgNode, path: str, folder: Path) -> str:
    """A checkpoint of a run that starts from another one."""
    model = build_model(cfg)
    ZeroShotCheckpointer(model).load(path, checkpointables=[])
    return saved(model, folder)


def test_labels_and_sentences_of_the_first_training_are_said_after_the_second(
    make_cfg, tmp_path, caplog
):
    others = ("ZERO_SHOT.SETTING", "supervised", "MODEL.CLIP.TEMPLATES", ["{}"])
    first = saved(build_model(make_cfg(*others)), tmp_path / "1")
    path = first
    for run in "23":
        path = trained_on(make_cfg(), path, tmp_path / run)
    caplog.clear()
    loaded(make_cfg(), path)
    assert "trained with labels of 5 classes that are unseen here" in caplog.text
    assert "trained with the sentences ['{}'], here they are ['a photo of a {}.']" in caplog.text
    # Each start is told once, however often runs were made of it, and nothing of the run itself.
    origins = torch.load(path, weights_only=True)["identity"]["origins"]
    assert [x["templates"] for x in origins] == [["{}"]]


def test_a_resumed_run_has_no_origin(make_cfg, tmp_path, caplog):
    path = trained_on(make_cfg(), saved(build_model(make_cfg()), tmp_path / "1"), tmp_path / "2")
    assert torch.load(path, weights_only=True)["identity"]["origins"] == []
    loaded(make_cfg(), path)
    assert "unseen here" not in caplog.text


def test_weights_of_unknown_origin_are_said_after_the_next_training(make_cfg, tmp_path, caplog):
    torch.save(build_model(make_cfg()).state_dict(), tmp_path / "bare.pth")
    path = trained_on(make_cfg(), str(tmp_path / "bare.pth"), tmp_path / "2")
    caplog.clear()
    loaded(make_cfg(), path)
    assert "trained from weights that do not say what they were trained with" in caplog.text


def test_an_inductive_checkpoint_is_not_tested_as_a_supervised_one(make_cfg, tmp_path):
    """Nor would results.json, which records ZERO_SHOT.SETTING, say that it is one."""
    supervised = ("ZERO_SHOT.SETTING", "supervised")
    path = saved(build_model(make_cfg()), tmp_path / "inductive")

    def evaluated(path: str, *setting: str) -> tuple[str, int | None]:
        return ZeroShotCheckpointer(build_model(make_cfg(*setting))).load_to_evaluate(path, False)

    with pytest.raises(ZssError, match="SETTING is supervised, .* 5 classes.* set it to inductive"):
        evaluated(path, *supervised)
    assert evaluated(path) == (path, None)
    # A supervised training may start from it, and is tested as one.
    path = trained_on(make_cfg(*supervised), path, tmp_path / "2")
    assert evaluated(path, *supervised) == (path, None)


@pytest.mark.parametrize(
    "key", ["origins", "settings", "train_classes", "labelled_classes", "clip"]
)
def test_a_damaged_identity_is_an_error(make_cfg, tmp_path, key):
    model = build_model(make_cfg())
    identity = model.identity() | {key: 5}
    torch.save({"model": model.state_dict(), "identity": identity}, tmp_path / "odd.pth")
    with pytest.raises(ZssError, match="odd.pth: what it says of its classes .* is damaged"):
        loaded(make_cfg(), str(tmp_path / "odd.pth"))


def test_synonyms_that_weights_rely_on_are_said(make_cfg, tmp_path, caplog):
    """Only where the benchmark has some: VOC does, COCO-Stuff does not."""
    on = ("MODEL.CLIP.SYNONYMS", True)
    loaded(make_cfg(*on), saved(build_model(make_cfg()), tmp_path / "voc"))
    assert "trained with MODEL.CLIP.SYNONYMS False, here it is True" in caplog.text
    caplog.clear()
    coco = ("DATASETS.TRAIN", ("zss_coco_stuff_train",), "DATASETS.TEST", ())
    loaded(make_cfg(*coco, *on), saved(build_model(make_cfg(*coco)), tmp_path / "coco"))
    assert "SYNONYMS" not in caplog.text


def test_a_checkpoint_without_identity_is_said(make_cfg, tmp_path, caplog):
    model = build_model(make_cfg())
    torch.save({"model": model.state_dict()}, tmp_path / "old.pth")
    ZeroShotCheckpointer(model).load(str(tmp_path / "old.pth"))
    assert "old.pth does not say which classes, sentences and CLIP" in caplog.text


def test_no_code_of_a_checkpoint_runs_whatever_its_suffix(make_cfg, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for suffix in ("pth", "pkl", "pyth"):
        path = tmp_path / f"evil.{suffix}"
        path.write_bytes(pickle.dumps({"model": Evil()}))
        with pytest.raises(ZssError, match="which may hold code"):
            ZeroShotCheckpointer(build_model(make_cfg())).load(str(path))
        assert not (tmp_path / "ran").exists()
