"""Keys of a method from outside the package."""

from __future__ import annotations

import re

import pytest

from zss_d2.config import default_config, methods, register_method_config
from zss_d2.config.defaults import validate_config
from zss_d2.config.rules import check_effects
from zss_d2.errors import ZssError


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(methods, "_registered", {})


def test_keys_and_rules_as_dicts_or_as_files(tmp_path):
    defaults = {"WIDTH": 8, "HEAD": {"NAME": "linear"}}
    register_method_config("my_method", defaults, {"WIDTH": {"range": "[1, inf)"}})
    (tmp_path / "d.yaml").write_text("DEPTH: 3\n")
    (tmp_path / "r.yaml").write_text("DEPTH: {range: '[1, 9]'}\n")
    register_method_config("other", tmp_path / "d.yaml", tmp_path / "r.yaml")
    cfg = default_config()
    assert (cfg.MODEL.MY_METHOD.WIDTH, cfg.MODEL.MY_METHOD.HEAD.NAME) == (8, "linear")
    cfg.MODEL.MY_METHOD.HEAD.NAME = "changed"
    assert default_config().MODEL.MY_METHOD.HEAD.NAME == "linear"
    cfg.MODEL.OTHER.DEPTH = 10
    with pytest.raises(ZssError, match="MODEL.OTHER.DEPTH is 10; use 1 to 9"):
        validate_config(cfg)


def test_it_reads_its_own_keys_and_not_those_of_others():
    register_method_config("my_method", {"WIDTH": 8}, {"ignores": ["MODEL.LOSS"]})
    cfg = default_config()
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "MyMethod", "MODEL.MY_METHOD.WIDTH", 9])
    check_effects(cfg, default_config(), {"MODEL.MY_METHOD.WIDTH"})
    for key, value in (("MODEL.LDVC.FFN_DIM", 9), ("MODEL.LOSS.CE_WEIGHT", 2.0)):
        other = cfg.clone()
        other.merge_from_list([key, value])
        with pytest.raises(ZssError, match=f"{key} .* 'MyMethod', which does not read it"):
            check_effects(other, default_config(), {key})
    other = cfg.clone()
    other.MODEL.META_ARCHITECTURE = "LDVC"
    with pytest.raises(ZssError, match="MODEL.MY_METHOD.WIDTH .* 'LDVC', which does not read it"):
        check_effects(other, default_config(), {"MODEL.MY_METHOD.WIDTH"})


def test_registering_again_replaces():
    for width in (8, 16):
        register_method_config("my_method", {"WIDTH": width})
        assert width == default_config().MODEL.MY_METHOD.WIDTH


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyMethod", "method 'MyMethod': give a name such as 'my_method'"),
        ("my method", "give a name such as 'my_method'"),
        ("ldvc", "method 'ldvc' is one of zss_d2"),
        ("clip", "method 'clip': MODEL.CLIP is a key of all methods; give another name"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message):
    with pytest.raises(ZssError, match=re.escape(message)):
        register_method_config(name, {"WIDTH": 8})
        default_config()


def test_a_rule_for_no_key_or_of_no_kind_is_refused():
    for rules, message in (
        ({"WITH": {"range": "[0, 1]"}}, "rules of method 'my_method': there is no key WITH"),
        ({"WIDTH": {"rang": "[0, 1]"}}, "rules of method 'my_method': WIDTH has 'rang'; use "),
    ):
        with pytest.raises(ZssError, match=re.escape(message)):
            register_method_config("my_method", {"WIDTH": 8}, rules)


def test_a_file_without_keys_is_named(tmp_path):
    (tmp_path / "d.yaml").write_text("- 3\n")
    with pytest.raises(ZssError, match="d.yaml: it holds no keys of a method"):
        register_method_config("my_method", tmp_path / "d.yaml")
