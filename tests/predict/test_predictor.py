"""The real models on images: every way to ask is one way through the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.conftest import ROOT
from zss_d2 import load_model
from zss_d2.data.files.images import read_mask
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.mini.write import write_split
from zss_d2.engine import ZeroShotTrainer, load_config
from zss_d2.errors import ZssError
from zss_d2.evaluation.predictions import prediction_file
from zss_d2.predict.options import Options
from zss_d2.predict.predictor import Predictor
from zss_d2.predict.words import Words

CLASSES = ["red dotted thing", "grass", "wood"]
PLAIN = ["TEST.FLIP", "False", "TEST.SCALES", "[1.0]"]
NO_OPTIONS = Options()


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load_model(ROOT / "configs/maskclip_mini.yaml", device="cpu", opts=PLAIN)


@pytest.fixture(scope="module")
def mini_root(tmp_path_factory) -> Iterator[Path]:
    """A DETECTRON2_DATASETS folder with a few scenes of zss_mini_val."""
    mini = load_benchmark("mini")
    root = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        write_split(mini.splits["val"], 4, root / "zss/mini")
        yield root


def image(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_scores_and_labels_belong_together(model):
    result = model.predict(image(), CLASSES, class_scores=True)
    assert (result.labels.dtype, result.scores.dtype) == (np.uint8, np.float32)
    assert np.array_equal(result.labels, result.class_scores.argmax(axis=0))
    assert np.array_equal(result.scores, result.class_scores.max(axis=0))
    np.testing.assert_allclose(result.class_scores.sum(axis=0), 1, atol=1e-5)
    assert result.classes == tuple(CLASSES)
    assert sum(result.area.values()) == pytest.approx(1)


def test_it_is_what_the_segmentor_says(model):
    pixels = image()
    item = {"image": torch.from_numpy(pixels).permute(2, 0, 1), "vocabulary": tuple(CLASSES)}
    expected = model([item])[0]["sem_seg"].numpy()
    result = model.predict(pixels, CLASSES, class_scores=True)
    assert np.array_equal(result.class_scores, expected)


def test_background_words_compete_and_come_out_as_0(model):
    plain = model.predict(image(), [*CLASSES, "lava"])
    result = model.predict(image(), CLASSES, background=["lava"])
    assert result.classes == ("background", *CLASSES)
    assert np.array_equal(result.labels, np.array([1, 2, 3, 0])[plain.labels])


def test_what_is_unsure_is_unknown(model):
    plain = model.predict(image(), CLASSES)
    limit = float(np.median(plain.scores))
    result = model.predict(image(), CLASSES, unknown_below=limit)
    assert np.array_equal(result.labels == 255, plain.scores < np.float32(limit))
    assert 0.4 < result.area["unknown"] < 0.6


def test_wordings_are_averaged(model):
    """Embeddings of the two wordings, added up and brought to unit norm again."""
    encoder, own = model.segmentor.text_encoder, model.segmentor.prompt_settings
    words = Words.of(["grass", "red dotted thing|dotted red thing"])
    _, mixed = model.segmentor.encode(torch.zeros(1, 3, 96, 96), words.vocabulary)
    one, other = encoder.classifier(["red dotted thing", "dotted red thing"], own)
    sentences = len(own.templates)
    assert sentences == 2
    tokens = encoder.tokenizer([t.format(n) for n in words.classes[1] for t in own.templates])
    total = torch.nn.functional.normalize(encoder.encode(tokens), dim=-1).sum(dim=0)
    torch.testing.assert_close(mixed[1], total / total.norm())
    assert not torch.allclose(mixed[1], one)
    assert not torch.allclose(mixed[1], other)


def test_templates_are_a_choice(model):
    other = model.predict(image(), CLASSES, templates=["a picture of {}"])
    assert not np.array_equal(other.scores, model.predict(image(), CLASSES).scores)


def test_the_seen_bias_lowers_classes_with_labels(model):
    seen = model.segmentor.labelled_classes[0]
    plain = model.predict(image(), [seen, "lava"], class_scores=True).class_scores
    biased = model.predict(image(), [seen, "lava"], seen_bias=0.2, class_scores=True).class_scores
    np.testing.assert_allclose(biased[0], np.clip(plain[0] - 0.2, 0, 1), atol=1e-6)
    is_seen = "lava" in model.segmentor.labelled_classes
    np.testing.assert_allclose(biased[1], np.clip(plain[1] - 0.2 * is_seen, 0, 1), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_list_in_batches(model, batch):
    """Of three sizes, one of which is done in tiles; results stay in order."""
    images = [image(), image(seed=1), image(80, 120, 2), image(220, 300, 3), image(seed=4)]
    together = model.predict(images, CLASSES, batch=batch)
    for pixels, result in zip(images, together, strict=True):
        alone = model.predict(pixels, CLASSES)
        assert result.labels.shape == pixels.shape[:2]
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-5)


def test_how_many_go_through_the_network_together(model, monkeypatch):
    seen = []
    logits = type(model.segmentor).class_logits
    monkeypatch.setattr(
        type(model.segmentor),
        "class_logits",
        lambda self, x, names: seen.append(tuple(x.shape)) or logits(self, x, names),
    )
    images = [image(), image(), image(), image(80, 120), image(80, 120)]
    list(model.label(images, Words.of(CLASSES), Options(batch=2)))
    assert [shape[0] for shape in seen] == [2, 1, 2]
    seen.clear()
    next(model.label([image(240, 300)], Words.of(CLASSES), Options(batch=8)))
    assert {shape[2:] for shape in seen} == {(96, 96)}
    assert [shape[0] for shape in seen] == [8, 4]


def test_large_images_are_done_in_tiles(model):
    assert not model.is_tiled((192, 192), NO_OPTIONS)
    assert model.is_tiled((193, 192), NO_OPTIONS)
    assert not model.is_tiled((2000, 2000), Options(tile=0))
    assert not model.is_tiled((2000, 2000), Options(size=96))
    assert model.is_tiled((100, 65), Options(tile=64))
    sliding = load_model(
        ROOT / "configs/maskclip_mini.yaml", device="cpu", opts=["TEST.SLIDE.ENABLED", "True"]
    )
    assert not sliding.is_tiled((2000, 2000), NO_OPTIONS)


@pytest.mark.parametrize("size", [None, 120])
def test_tiles_of_a_source_are_those_of_an_array(model, size):
    """With ``size`` they are scaled for the network, as the whole image would be."""
    pixels, words = image(240, 300), Words.of(CLASSES)
    options = Options(size=size, tile=64)
    whole = model.predict(pixels, CLASSES, size=size, tile=64)

    class Source:
        size = (240, 300)

        def read(self, rows, columns):
            return pixels[rows, columns]

        def valid(self, rows, columns):
            return pixels[rows, columns, 0] > 10

    labels = np.full((240, 300), 99, np.uint8)
    for part in model.label_tiles(Source(), words, options):
        labels[part.rows, part.columns] = part.labels
        expected = whole.scores[part.rows, part.columns]
        np.testing.assert_allclose(part.scores, expected, atol=1e-5)
    valid = pixels[..., 0] > 10
    assert (labels[~valid] == words.nodata_id).all()
    assert np.array_equal(labels[valid], whole.labels[valid])


def test_a_shorter_edge_for_the_network(model):
    assert model.network_size((200, 300), NO_OPTIONS) == (200, 300)
    assert model.network_size((200, 300), Options(size=100)) == (100, 150)
    assert model.predict(image(200, 300), CLASSES, size=96).labels.shape == (200, 300)


def test_scores_that_are_too_many_keep_their_best(model):
    small = load_model(
        ROOT / "configs/maskclip_mini.yaml",
        device="cpu",
        opts=[*PLAIN, "TEST.MAX_SCORES_MIB", "1"],
    )
    pixels = image(400, 300)
    expected = model.predict(pixels, CLASSES, tile=0)
    result = small.predict(pixels, CLASSES, tile=0)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)
    assert (result.labels == expected.labels).mean() > 0.999
    for tile in (0, 96):
        with pytest.raises(ZssError, match="3 words at 300x400 px .* 1 MiB of TEST.MAX_SCORES_MIB"):
            small.predict(pixels, CLASSES, tile=tile, class_scores=True)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (["cat"], {}, "does not know the word 'cat'"),
        (CLASSES, {"templates": ["a cat of {}"]}, "does not know the word 'cat'"),
        (CLASSES, {"batch": 0}, "batch is 0"),
        (CLASSES, {"overlap": 0.9}, "overlap is 0.9"),
        (CLASSES, {"overlap": None}, "overlap is None; give a number from 0 to 0.5"),
        (CLASSES, {"size": 64.0}, "size is 64.0; give 0, or a whole number from 32 to 8192"),
        (CLASSES, {"size": 65535}, "size is 65535; give 0, or a whole number from 32 to 8192"),
        (CLASSES, {"tile": 1}, "tile is 1; give 0, or a whole number from 32 to 8192"),
        (CLASSES, {"batch": 100_000}, "batch is 100000; give a whole number from 1 to 1024"),
        (CLASSES, {"batch": "2"}, "batch is '2'; give a whole number from 1"),
        (CLASSES, {"seen_bias": float("nan")}, "seen_bias is nan; give a number from -1 to 1"),
        (Words.of(CLASSES), {"background": ["lava"]}, "classes are Words"),
    ],
)
def test_bad_words_and_options_are_one_line(model, classes, options, message):
    with pytest.raises(ZssError, match=message):
        model.predict(image(), classes, **options)


def test_words_are_checked_before_work(model):
    model.check(Words.of(CLASSES), NO_OPTIONS)
    with pytest.raises(ZssError, match="does not know"):
        model.check(Words.of(["zebra"]), NO_OPTIONS)


def test_learned_prompts_take_no_templates():
    model = load_untrained("ldvc_mini", "MODEL.TEXT_PROMPTS.LENGTH", "4")
    with pytest.raises(ZssError, match="learned prompts"):
        model.predict(image(), CLASSES, templates=["a photo of a {}."])
    assert model.predict(image(), CLASSES).labels.shape == (96, 96)


def load_untrained(config: str, *opts: str) -> Predictor:
    overrides = ["MODEL.DEVICE", "cpu", "SEED", "3", *opts]
    cfg = load_config(ROOT / f"configs/{config}.yaml", overrides)
    torch.manual_seed(3)
    model = ZeroShotTrainer.build_model(cfg).eval()
    # A decoder as it starts says the same of every pixel.
    for name, parameter in model.named_parameters():
        if name.startswith("decoder.") and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return Predictor(cfg, model)


@pytest.mark.parametrize("config", ["maskclip_mini", "zegclip_mini", "ldvc_mini", "clip_zss_mini"])
def test_predict_equals_an_evaluation(config, mini_root, tmp_path):
    """Pixel for pixel, with the data set's own words: files of TEST.PREDICTIONS png."""
    model = load_untrained(
        config, "TEST.PREDICTIONS", "png", "OUTPUT_DIR", str(tmp_path), "TEST.SEEN_BIAS", "0.05"
    )
    ZeroShotTrainer.test(model.cfg, model.segmentor)
    name = model.cfg.DATASETS.TEST[0]
    classes = MetadataCatalog.get(name).stuff_classes
    records = DatasetCatalog.get(name)
    assert len(records) >= 3
    for record in records:
        result = model.predict(record["file_name"], classes)
        stored = read_mask(prediction_file(tmp_path, name, record["image_id"]))
        assert np.array_equal(result.labels, stored)
    assert len(np.unique(stored)) > 1
