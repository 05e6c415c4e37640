"""The mini CLIP: its tokenizer, the shipped weights, and the program that trained them."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open

import zss_d2.clip.mini
from zss_d2.clip import PromptSettings, TextEncoder, build_clip_towers
from zss_d2.clip.mini.tokenizer import CONTEXT_LENGTH, WORDS, ClosedVocabularyTokenizer
from zss_d2.clip.towers import get_tokenizer
from zss_d2.data.synthetic.mini import CLASSES, THINGS
from zss_d2.errors import ZssError
from zss_d2.mini_clip.command import main
from zss_d2.mini_clip.pairs import choose_mentioned, draw_pool, sample_batch, word_caption
from zss_d2.mini_clip.pretrain import (
    Pretraining,
    contrastive_loss,
    learning_rate,
    pretrain,
)
from zss_d2.mini_clip.probe import TEMPLATES, probe
from zss_d2.mini_clip.recipe import Recipe

WEIGHTS = Path(zss_d2.clip.mini.__file__).parent
SEEDS = ("seed0", "seed1")
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def tokenizer() -> ClosedVocabularyTokenizer:
    return ClosedVocabularyTokenizer()


@pytest.fixture(scope="module")
def pool():
    return draw_pool(48, seed=5, workers=1)


def test_ids_keep_the_order_of_clip_and_fill_the_vocabulary(tokenizer):
    original = open_clip.get_tokenizer("ViT-B-32")
    words = sorted((word for word in WORDS if len(original.encode(word)) == 1), key=original.encode)
    ids = [tokenizer.encode(word)[1] for word in words]
    assert ids == sorted(ids)
    assert 0 < ids[0] <= ids[-1] < tokenizer.sot_token_id < tokenizer.eot_token_id
    assert tokenizer.vocab_size == tokenizer.eot_token_id + 1
    assert open_clip.get_model_config("mini")["text_cfg"]["vocab_size"] == tokenizer.vocab_size
    assert open_clip.get_model_config("mini")["text_cfg"]["context_length"] == CONTEXT_LENGTH


def test_tokens_are_padded_and_end_of_text_is_the_largest(tokenizer):
    tokens = tokenizer(["Red striped thing", "a photo of a red striped thing."])
    assert tokens.shape == (2, CONTEXT_LENGTH)
    assert tokens.argmax(dim=1).tolist() == [4, 9]
    assert tokens[0, 1:4].tolist() == tokens[1, 5:8].tolist()
    assert (tokens[0, 5:] == 0).all()


def test_an_unknown_word_is_named_with_the_known_ones(tokenizer):
    with pytest.raises(ZssError, match="word 'zebra' of 'a photo of a zebra.'.*it knows: .* grass"):
        tokenizer(["a photo of a zebra."])


def test_a_text_beyond_the_context_is_refused(tokenizer):
    with pytest.raises(ZssError, match="has 42 tokens, the mini CLIP reads 32"):
        tokenizer(["red " * 40])


def test_the_longest_caption_fits(tokenizer):
    rng = np.random.default_rng(0)
    things = [i for i, name in enumerate(THINGS) if "meshed" in name][:3]
    ids = (*things, len(THINGS), len(THINGS) + 1)
    assert max(len(tokenizer.encode(word_caption(ids, rng))) for _ in range(200)) <= CONTEXT_LENGTH


def test_other_models_keep_the_tokenizer_of_open_clip():
    assert not isinstance(get_tokenizer("zss-tiny"), ClosedVocabularyTokenizer)
    assert isinstance(get_tokenizer("mini"), ClosedVocabularyTokenizer)


def test_text_encoder_makes_a_classifier_for_the_mini_classes():
    clip = open_clip.create_model("mini").eval()
    encoder = TextEncoder(clip, get_tokenizer("mini"))
    weights = encoder.classifier(CLASSES, PromptSettings(TEMPLATES))
    assert weights.shape == (len(CLASSES), 128)
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(len(CLASSES)))
    texts = encoder.tokenizer(["a photo of a red plain thing."])
    torch.testing.assert_close(encoder.encode(texts), clip.encode_text(texts))


def test_captions_mention_things_alone_stuff_alone_or_both():
    rng = np.random.default_rng(0)
    grass = len(THINGS)
    chosen = {choose_mentioned((7, 3, grass), rng) for _ in range(100)}
    assert chosen == {(3, 7, grass), (3, 7), (grass,)}
    assert {choose_mentioned((grass,), rng) for _ in range(50)} == {(grass,)}


def test_a_batch_pairs_images_with_what_they_show(pool):
    batch = sample_batch(pool, np.random.default_rng(1), 16)
    assert (batch.images.shape, batch.images.dtype) == ((16, 3, 96, 96), torch.uint8)
    known = {tuple(sorted(ids)) for ids in pool.classes}
    for text, ids in zip(batch.captions, batch.mentioned, strict=True):
        assert any(set(ids) <= set(classes) for classes in known)
        assert all(CLASSES[i] in text for i in ids)
        assert sum(text.count(name) for name in CLASSES) == len(ids)


def test_pretraining_scenes_hold_unseen_classes_but_carry_no_mask(pool):
    assert [field.name for field in fields(pool)] == ["images", "classes"]
    assert pool.images.shape == (48, 96, 96, 3)


def test_loss_rewards_matching_pairs_and_tolerates_equal_captions():
    mentioned = [(1,), (2,), (1,)]
    matched = torch.tensor([[9.0, 0, 9], [0, 9, 0], [9, 0, 9]])
    assert contrastive_loss(matched, mentioned) < 0.7  # two equal captions: log 2
    assert contrastive_loss(matched.flip(0).roll(1, 0), mentioned) > 2


def test_learning_rate_warms_up_and_ends_at_zero():
    recipe = Recipe(steps=200, warmup=10, lr=1.0)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 10) == pytest.approx(1.0)
    assert learning_rate(recipe, 105) == pytest.approx(0.5)
    assert learning_rate(recipe, 199) < 1e-3


def test_random_weights_know_nothing():
    torch.manual_seed(0)
    result = probe(build_clip_towers("mini", ""), per_class=4, dense_scenes=30)
    assert result.things < 15
    assert result.harmonic < 2


@pytest.mark.parametrize("tag", SEEDS)
def test_shipped_weights_are_small_half_precision_files_listed_in_the_card(tag):
    path = WEIGHTS / f"{tag}.safetensors"
    data = path.read_bytes()
    assert len(data) < 2 * MEGABYTE
    assert hashlib.sha256(data).hexdigest() in (WEIGHTS / "MODEL_CARD.md").read_text()
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        assert file.metadata()["seed"] == tag[-1]


@pytest.mark.parametrize("tag", SEEDS)
def test_shipped_weights_beat_chance_by_far(tag):
    towers = build_clip_towers("mini", tag)
    assert {p.dtype for p in towers.image.parameters()} == {torch.float32}
    result = probe(towers, per_class=4, dense_scenes=40)
    assert result.things > 60  # chance: 4
    assert result.stuff > 80  # chance: 10
    assert result.harmonic > 15  # random weights: below 2


def test_the_two_checkpoints_differ_and_an_unknown_tag_lists_them():
    first, second = (build_clip_towers("mini", tag).image.visual.proj for tag in SEEDS)
    assert not torch.equal(first, second)
    with pytest.raises(ZssError, match="'seed9': neither a file nor a tag of mini .*seed0, seed1"):
        build_clip_towers("mini", "seed9")


def test_a_file_serves_as_well_as_a_tag():
    path = WEIGHTS / "seed0.safetensors"
    by_file, by_tag = (build_clip_towers("mini", which) for which in (str(path), "seed0"))
    assert torch.equal(by_file.image.visual.proj, by_tag.image.visual.proj)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, pool):
    recipe = Recipe(steps=4, batch=8, scenes=len(pool.classes), warmup=1)
    through, first = Pretraining(recipe), Pretraining(recipe)
    for _ in range(4):
        through.run_step(pool)
    for _ in range(2):
        first.run_step(pool)
    torch.save(first.state(), tmp_path / "half")
    second = Pretraining(recipe)
    second.load(tmp_path / "half")
    while second.step < 4:
        second.run_step(pool)
    for key, value in through.clip.state_dict().items():
        assert torch.equal(value, second.clip.state_dict()[key]), key
    with pytest.raises(ZssError, match="unfinished run with other settings"):
        Pretraining(Recipe(steps=5)).load(tmp_path / "half")


def test_text_warm_up_separates_captions_that_differ_in_one_word():
    run = Pretraining(Recipe(text_warmup=60))
    encoder = run.towers.text
    texts = encoder.tokenizer(["a photo of a red plain thing", "a photo of a red striped thing"])

    def similarity() -> float:
        with torch.no_grad():
            return float(torch.cosine_similarity(*encoder.encode(texts), dim=0))

    before = similarity()
    assert run.warm_up_text() < 0.2
    assert similarity() < before - 0.02


@pytest.mark.slow
def test_a_small_budget_raises_the_probe_above_chance(tmp_path, capsys):
    """Chance is 4 % of the 25 things and 10 % of the 10 stuff classes."""
    recipe = Recipe(seed=3, steps=60, batch=48, scenes=768, warmup=10)
    output = tmp_path / "small.safetensors"
    pretrain(recipe, output, workers=1, probe_period=0)
    assert "sha256" in capsys.readouterr().out
    result = probe(build_clip_towers("mini", str(output)), per_class=8, dense_scenes=1)
    assert result.things > 8
    assert result.stuff > 20
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]


def test_the_command_line_reports_a_foreign_unfinished_run(tmp_path, capsys):
    torch.save({"recipe": {"steps": 1}}, tmp_path / "a.safetensors.resume")
    assert main(["--output", str(tmp_path / "a.safetensors")]) == 2
    assert "unfinished run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"no state", b""])
def test_an_unfinished_run_that_cannot_be_read_is_named(tmp_path, capsys, content):
    path = tmp_path / "a.safetensors.resume"
    path.write_bytes(content)
    assert main(["--output", str(tmp_path / "a.safetensors")]) == 2
    assert f"{path} cannot be read" in capsys.readouterr().err
    assert path.read_bytes() == content
