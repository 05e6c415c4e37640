"""Keys of earlier versions: renamed, removed, and what that means to the runs that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.config.defaults import default_config
from zss_d2.config.rules import load_rules, plain, resume_changes
from zss_d2.config.values import flatten
from zss_d2.engine import load_config
from zss_d2.errors import ZssError

CLIP_ZSS = ROOT / "configs/clip_zss_mini.yaml"
GONE = {
    "MODEL.CLIP_ZSS.MIN_OPEN": (0.5, "is now MODEL.CLIP_ZSS.MIN_UNLABELED_FRACTION; use that name"),
    "MODEL.CLIP_ZSS.MIN_COSINE": (-1.0, "was removed, as no config used it; leave it out"),
    "MODEL.CLIP_ZSS.TEACHER_CACHE": ("", "was removed, as no config could .*; leave it out"),
    "MODEL.LDVC.IDENTITY_VALUES": (False, "was removed, as its ablation .*; leave it out"),
    "MODEL.LDVC.LAYER_SCALE": (0.0, "was removed, as its ablation .*; leave it out"),
    "TEST.SLIDE.BATCH": (1, "is now TEST.BATCH; use that name"),
}


def test_they_are_no_keys_of_this_version():
    rules, known = load_rules(), set(flatten(default_config()))
    assert {*rules.renamed, *rules.removed} == set(GONE)
    assert not known & set(GONE)
    assert set(rules.renamed.values()) <= known


@pytest.mark.parametrize("key", GONE)
def test_one_line_names_the_new_key_or_the_reason(key, tmp_path):
    value, message = GONE[key]
    with pytest.raises(ZssError, match=f"command line: {key} {message}"):
        load_config(TINY_CONFIG, [key, value])
    root, node, name = key.split(".")
    own = tmp_path / "own.yaml"
    content = {"_BASE_": str(TINY_CONFIG), root: {node: {name: value}}}
    own.write_text(yaml.safe_dump(content))
    with pytest.raises(ZssError, match=f"own.yaml: {key} {message}"):
        load_config(own)


def dump_of_an_earlier_run(folder: Path, **changes: Any) -> Path:
    """config.yaml of a CLIP-ZSS run, with all keys of then."""
    content = yaml.safe_load(load_config(CLIP_ZSS).dump())
    share = content["MODEL"]["CLIP_ZSS"].pop("MIN_UNLABELED_FRACTION")
    for key, (value, _) in GONE.items():
        root, node, name = key.split(".")
        content[root][node][name] = value
    content["MODEL"]["CLIP_ZSS"] |= {"MIN_OPEN": share} | changes
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_config_of_an_earlier_run_is_read_under_the_new_keys(tmp_path):
    cfg = load_config(CLIP_ZSS)
    assert cfg.MODEL.CLIP_ZSS.MIN_UNLABELED_FRACTION == 0.5
    again = flatten(load_config(dump_of_an_earlier_run(tmp_path)))
    assert {key: plain(value) for key, value in again.items()} == {
        key: plain(value) for key, value in flatten(cfg).items()
    }


def test_a_removed_key_that_the_run_used_is_refused(tmp_path):
    path = dump_of_an_earlier_run(tmp_path, MIN_COSINE=0.4)
    with pytest.raises(ZssError, match="config.yaml: MODEL.CLIP_ZSS.MIN_COSINE was removed"):
        load_config(path)


def test_an_earlier_run_is_resumed_under_the_new_keys(tmp_path):
    """What was renamed is compared, what was removed only if the run used it."""
    cfg, content = load_config(CLIP_ZSS), dump_of_an_earlier_run(tmp_path).read_text()
    before = flatten(yaml.safe_load(content))
    assert not any(vars(resume_changes(before, cfg, default_config())).values())
    before |= {"MODEL.CLIP_ZSS.MIN_OPEN": 0.25, "MODEL.CLIP_ZSS.MIN_COSINE": 0.4}
    assert resume_changes(before, cfg, default_config()).fixed == {
        "MODEL.CLIP_ZSS.MIN_UNLABELED_FRACTION": (0.25, 0.5),
        "MODEL.CLIP_ZSS.MIN_COSINE": (0.4, None),
    }


def test_windows_at_once_are_the_batch_of_a_test_where_somebody_chose_them(tmp_path):
    path = dump_of_an_earlier_run(tmp_path)
    assert load_config(path).TEST.BATCH == 0
    content = yaml.safe_load(path.read_text())
    content["TEST"]["SLIDE"]["BATCH"] = 8
    path.write_text(yaml.safe_dump(content))
    assert load_config(path).TEST.BATCH == 8
