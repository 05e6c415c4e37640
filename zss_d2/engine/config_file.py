"""The config of a run: defaults, ``--config-file`` and ``KEY VALUE`` overrides."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from zss_d2.config import default_config, validate_config
from zss_d2.config_rules import flatten, without_effect
from zss_d2.data.custom import register_custom
from zss_d2.data.vocabulary import require_distinct_tests
from zss_d2.errors import ZssError


def load_config(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, ``--config-file`` and ``KEY VALUE`` overrides into a frozen config.

    Raises:
        ZssError: missing file, unknown key, value of another type, impossible setting.
    """
    cfg, useless = default_config(), set()
    if args.config_file:
        if not os.path.isfile(args.config_file):
            raise ZssError(f"config file {args.config_file} does not exist; see configs/")
        # Upstream's default would run python code that a yaml file names.
        merge = functools.partial(cfg.merge_from_file, allow_unsafe=False)
        _merge(merge, args.config_file, args.config_file)
        # What the command line turns off below had its effect in the file, and the reverse.
        useless = without_effect(cfg, _own_keys(args.config_file))
    _merge(cfg.merge_from_list, args.opts, "command line")
    validate_config(cfg, given=useless.union(args.opts[::2]))
    register_custom(cfg.DATASETS.CUSTOM)
    require_distinct_tests(cfg.DATASETS.TEST)
    cfg.freeze()
    return cfg


def _own_keys(config_file: str) -> set[str]:
    """Dotted keys that a config file itself names.

    None for the ``config.yaml`` of a run, which has every key and so names none in particular.
    """
    keys = set(flatten(yaml.safe_load(Path(config_file).read_text(encoding="utf-8")) or {}))
    everything = set(flatten(default_config()))
    return set() if len(everything - keys) < len(everything) / 2 else keys


def _merge(merge: Callable, source: object, name: str) -> None:
    try:
        merge(source)
    except (KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        remedy = ""
        if "Type mismatch" in str(reason):
            remedy = "; write 1.0 where the default has decimals, and quotes around text"
        raise ZssError(f"{name}: {reason}{remedy}") from error
