import argparse

import pytest

from tests.conftest import TINY_CONFIG
from zss_d2.engine import load_config
from zss_d2.errors import ZssError


def arguments(*opts: str, config_file: str = str(TINY_CONFIG)):
    return argparse.Namespace(config_file=config_file, opts=list(opts))


def test_overrides_win_and_the_config_is_frozen():
    cfg = load_config(arguments("SOLVER.MAX_ITER", "7"))
    assert cfg.SOLVER.MAX_ITER == 7
    assert cfg.MODEL.CLIP.NAME == "zss-tiny"
    assert cfg.is_frozen()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"config_file": "none.yaml"}, "none.yaml does not exist"),
        ({"opts": ["SOLVER.MAXITER", "7"]}, "command line: .*SOLVER.MAXITER"),
        ({"opts": ["SOLVER.MAX_ITER", "many"]}, "command line: .*SOLVER.MAX_ITER"),
        ({"opts": ["SOLVER.MAX_ITER"]}, "command line: .*odd length|command line: .*SOLVER"),
        ({"opts": ["ZERO_SHOT.SETTING", "blind"]}, "'blind'; use one of 'inductive', 'supervised'"),
        ({"opts": ["INPUT.FORMAT", "BGR"]}, "INPUT.FORMAT is 'BGR'"),
    ],
)
def test_wrong_configs_are_explained(given, message):
    opts = given.pop("opts", [])
    with pytest.raises(ZssError, match=message):
        load_config(arguments(*opts, **given))


def test_a_misspelt_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("SOLVER:\n  MAXITER: 3\n")
    with pytest.raises(ZssError, match=r"mine.yaml: .*SOLVER.MAXITER"):
        load_config(arguments(config_file=str(path)))


def test_a_config_runs_no_code(tmp_path):
    path, mark = tmp_path / "evil.yaml", tmp_path / "mark"
    path.write_text(f"SEED: !!python/object/apply:pathlib.Path.touch [{mark}]\n")
    with pytest.raises(ZssError, match="evil.yaml: "):
        load_config(arguments(config_file=str(path)))
    assert not mark.exists()
