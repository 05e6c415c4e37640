"""Nothing of an unseen class, neither its labels nor its name, takes part in inductive training."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.method_tester import batch
from zss_d2.data.files.listing import load_records
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.locations import prepared_location
from zss_d2.errors import ZssError

VOC = load_benchmark("voc")


@pytest.fixture
def build(make_cfg):
    """``build("KEY", value, ...)``: a tiny LDVC and the list of all texts that it embeds."""

    def make(*overrides: object) -> tuple[torch.nn.Module, list[str]]:
        model = build_model(make_cfg("MODEL.META_ARCHITECTURE", "LDVC", *overrides))
        texts: list[str] = []
        tokenizer = model.text_encoder.tokenizer

        def spy(sentences: list[str]) -> torch.Tensor:
            texts.extend(sentences)
            return tokenizer(sentences)

        model.text_encoder.tokenizer = spy
        return model, texts

    return make


def names_in(texts: list[str]) -> set[str]:
    return {name for name in VOC.classes if any(name in text for text in texts)}


def test_unseen_names_are_never_embedded_in_inductive_training(build):
    model, texts = build()
    losses = model.train()(batch((64, 64), (40, 90)))
    sum(losses.values()).backward()
    assert names_in(texts) == set(VOC.seen_names)


def test_unseen_names_come_in_when_testing(build):
    model, texts = build()
    model.eval()(batch((64, 64)))
    assert names_in(texts) == set(VOC.classes)


def test_supervised_training_embeds_all_names(build):
    model, texts = build("ZERO_SHOT.SETTING", "supervised")
    model.train()(batch((64, 64)))
    assert names_in(texts) == set(VOC.classes)


def test_a_mapper_that_hides_nothing_stops_an_inductive_run_with_the_file_name(
    build, make_cfg, toy_voc
):
    model, _ = build()
    leaky = ZeroShotMapper(make_cfg("ZERO_SHOT.SETTING", "supervised"), is_train=True)
    (record, *_) = load_records(prepared_location(VOC, VOC.splits["train"]), "zss_voc_train")
    with pytest.raises(ZssError) as caught:
        for _ in range(20):
            model.train()([leaky(record)])
    assert record["file_name"] in str(caught.value)
    assert "hide them in the mapper" in str(caught.value)
