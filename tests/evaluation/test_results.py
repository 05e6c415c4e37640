import hashlib
import json
import shutil
import subprocess

import pytest
import torch
from detectron2.data import DatasetCatalog

from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator, read_results, results, write_results
from zss_d2.evaluation.results import collect_provenance, describe_protocol, protocol_of

MASKCLIP = ("MODEL.META_ARCHITECTURE", "MaskCLIP")


def test_results_are_plain_json_and_nan_becomes_null(make_cfg, tmp_path):
    path, provenance = tmp_path / "results.json", collect_provenance(make_cfg(), "", None)
    write_results(path, {"set": {"mIoU": 12.5, "hIoU": float("nan")}}, provenance)
    json.loads(path.read_text(), parse_constant=lambda text: pytest_fail(text))
    assert read_results(path) == {"set": {"mIoU": 12.5, "hIoU": None}, "provenance": provenance}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def pytest_fail(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def test_a_test_set_cannot_be_called_provenance(toy_voc, tmp_path):
    with pytest.raises(ZssError, match="cannot be called 'provenance', which results.json uses"):
        write_results(tmp_path / "results.json", {"provenance": {"mIoU": 1.0}}, {})
    assert not list(tmp_path.iterdir())
    DatasetCatalog.register("provenance", lambda: DatasetCatalog.get("zss_voc_val"))
    try:
        with pytest.raises(ZssError, match="register it under another name"):
            ZeroShotSemSegEvaluator("provenance", distributed=False)
    finally:
        DatasetCatalog.remove("provenance")


def test_provenance_identifies_the_run(make_cfg, tmp_path):
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")
    cfg = make_cfg("SEED", 7)
    provenance = collect_provenance(cfg, str(checkpoint), 25)
    assert provenance["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (provenance["seed"], provenance["iteration"], provenance["device"]) == (7, 25, "cpu")
    assert provenance["protocol"]["setting"] == "inductive"
    assert provenance["precision"] == "float32"
    half = collect_provenance(make_cfg("MODEL.AUTOCAST", "bfloat16"), "", None)
    assert half["precision"] == "bfloat16"
    other = collect_provenance(make_cfg("SEED", 8), "", None)
    assert other["config_sha256"] != provenance["config_sha256"]
    assert other["checkpoint_sha256"] is None


def test_a_protocol_says_which_tokens_meet_which_names(make_cfg):
    """Of a trained method the tokens are what its weights were trained with."""
    trained = protocol_of(make_cfg("MODEL.CLIP.SYNONYMS", True))
    assert "dense_tokens" not in trained
    assert describe_protocol(trained).endswith("seen bias 0, class names and synonyms")
    words = [["cat", "kitten", "tiger"], ["dog", "puppy"]]
    free = make_cfg(
        *(*MASKCLIP, "MODEL.CLIP.DENSE_TOKENS", "naclip"),
        *("MODEL.CLIP.DENSE.NACLIP_SIGMA", 3.0, "MODEL.CLIP.POSITION_RESIZE", "bicubic"),
        *("MODEL.MASKCLIP.WORDS", words, "TEST.BACKGROUND_BELOW", 0.1),
    )
    protocol = protocol_of(free)
    assert protocol["words"] == {"cat": ["kitten", "tiger"], "dog": ["puppy"]}
    assert protocol["dense_tokens"] == {
        "DENSE_TOKENS": "naclip",
        "DENSE.NACLIP_SIGMA": 3.0,
        "DENSE.RESCLIP_WEIGHT": 0.0,
    }
    assert describe_protocol(protocol).endswith(
        "seen bias 0, dense tokens naclip (NACLIP_SIGMA 3.0, RESCLIP_WEIGHT 0.0), bicubic "
        "positions, sentence 'a photo of a {}.', plain class names, 2 words for cat, 1 words for "
        "dog, background below 0.1"
    )
    many = protocol_of(make_cfg(*MASKCLIP, "MODEL.CLIP.TEMPLATE_SET", "imagenet80"))
    assert "sentences imagenet80, " in describe_protocol(many)
    earlier = {key: protocol[key] for key in results._NEEDED["protocol"]}
    assert describe_protocol(earlier).endswith("seen bias 0")


def test_the_commit_of_a_repository_around_the_package_is_not_recorded(
    make_cfg, tmp_path, monkeypatch
):
    """An environment within somebody's own project, whose files are committed."""
    repository, package = tmp_path / "thesis", tmp_path / "thesis/venv/site-packages/zss_d2"
    package.parent.mkdir(parents=True)
    shutil.copytree(results._PACKAGE / "evaluation", package / "evaluation")
    shutil.copy(results._PACKAGE / "__init__.py", package)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b commit -q -m thesis"):
        subprocess.run(["git", "-C", str(repository), *command.split()], check=True)
    monkeypatch.setattr(results, "_PACKAGE", package)
    provenance = results.collect_provenance(make_cfg(), "", None)
    assert provenance["commit"] is None
    assert provenance["uncommitted_changes"] is None


def test_the_device_is_the_one_of_the_config(make_cfg, monkeypatch):
    names = {"cuda:1": "second", "cuda": "first", None: "current"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: names[device])
    for device, name in (("cuda:1", "second"), ("cuda", "first"), ("mps", "mps"), ("cpu", "cpu")):
        cfg = make_cfg("MODEL.DEVICE", device)
        assert results.collect_provenance(cfg, "", None)["device"] == name
