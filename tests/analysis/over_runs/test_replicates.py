"""Which runs are repetitions of each other, and what they are called."""

import pytest

from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.errors import ZssError


@pytest.fixture
def configs(make_cfg) -> list:
    """Two settings with two seeds each."""
    return [
        make_cfg("SEED", seed, "MODEL.LDVC.FFN_DIM", width) for width in (64, 32) for seed in (0, 1)
    ]


def test_the_seed_makes_no_other_run(configs, tmp_path):
    folders = [tmp_path / x for x in ("b/x/seed0", "b/x/seed1", "b/y/seed0", "b/y/seed1")]
    assert replicates(folders, configs) == {"x": [0, 1], "y": [2, 3]}


def test_other_keys_may_be_named(configs, tmp_path):
    folders = [tmp_path / x for x in "abcd"]
    everything = replicates(folders, configs, ["MODEL.LDVC.FFN_DIM"])
    assert list(everything.values()) == [[0, 1, 2, 3]]
    with pytest.raises(ZssError, match="--over MODEL.WIDTH is no config key"):
        replicates(folders, configs, ["MODEL.WIDTH"])


def test_folders_that_do_not_tell_groups_apart(configs, tmp_path):
    """One folder of all runs, and one within that of others."""
    flat = [tmp_path / f"c/{i}" for i in range(4)]
    assert replicates(flat, configs) == {"LDVC (1)": [0, 1], "LDVC (2)": [2, 3]}
    nested = [tmp_path / x for x in ("d/0", "d/1", "d/x/0", "d/x/1")]
    assert replicates(nested, configs) == {"LDVC (1)": [0, 1], "LDVC (2)": [2, 3]}
