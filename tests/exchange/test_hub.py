"""Model folders by huggingface_hub's methods; the hub itself is a stand-in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import hub_mixin

from tests.conftest import ROOT
from tests.test_api import scores
from zss_d2 import load_model
from zss_d2.config.model_folder import ABOUT, CARD, CONFIG, WEIGHTS
from zss_d2.exchange import hub
from zss_d2.exchange.hub import HubModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    model = load_model(ROOT / "configs/maskclip_mini.yaml", device="cpu")
    return model.save_pretrained(tmp_path_factory.mktemp("folders") / "maskclip")


def test_from_a_folder_and_to_one(folder, tmp_path):
    model = HubModel.from_pretrained(str(folder), device="cpu")
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / ABOUT).read_text() == (folder / ABOUT).read_text()
    again = load_model(tmp_path / "again", device="cpu")
    assert torch.equal(scores(again), scores(model.predictor))


def test_from_a_repository(folder, monkeypatch):
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options["revision"], options["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    # The mixin looks for a config.json of its own first.
    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda **_: pytest.fail("downloads"))
    model = HubModel._from_pretrained(model_id="somebody/maskclip", revision="v1", device="cpu")
    assert asked == [("somebody/maskclip", "v1", [ABOUT, CARD, CONFIG, WEIGHTS, "dataset_*.yaml"])]
    assert torch.equal(scores(model.predictor), scores(load_model(folder, device="cpu")))


def test_to_a_repository(folder, monkeypatch):
    sent = []

    class Api:
        def __init__(self, **_: object):
            pass

        def create_repo(self, repo_id: str, **_: object) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id: str, folder_path: str, **_: object) -> None:
            sent.append((repo_id, {path.name for path in Path(folder_path).iterdir()}))

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    HubModel(load_model(folder, device="cpu")).push_to_hub("me/maskclip")
    ((name, files),) = sent
    assert name == "me/maskclip"
    assert files >= {ABOUT, CARD, CONFIG, WEIGHTS}
