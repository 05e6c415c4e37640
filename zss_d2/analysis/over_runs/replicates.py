"""Runs that are repetitions of one another, and what a group of them is called."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from zss_d2.analysis.names import short_names
from zss_d2.analysis.sweep.settings import settings_hash
from zss_d2.config.values import flatten
from zss_d2.errors import ZssError


def replicates(
    folders: Sequence[Path], configs: Sequence[CfgNode], over: Collection[str] = ()
) -> dict[str, list[int]]:
    """Groups of runs whose settings differ in the seed and in the keys ``over`` alone.

    Args:
        folders: of the runs, no one twice.
        configs: of the runs.
        over: more keys that the runs of a group may differ in.

    Returns:
        name -> indices of its runs, in the order given.

    Raises:
        ZssError: there is no such key.
    """
    if unknown := [key for key in over if key not in flatten(configs[0])]:
        raise ZssError(f"--over {unknown[0]} is no config key; name such as MODEL.CLIP.PRETRAINED")
    groups: dict[str, list[int]] = {}
    for index, cfg in enumerate(configs):
        groups.setdefault(settings_hash(cfg, without=["SEED", *over]), []).append(index)
    members = list(groups.values())
    return dict(zip(_names(folders, configs, members), members, strict=True))


def _names(
    folders: Sequence[Path], configs: Sequence[CfgNode], members: Sequence[Sequence[int]]
) -> list[str]:
    """Of each group the part of the path that its runs share, or else the method."""
    shared = [Path(os.path.commonpath([folders[i].resolve() for i in ids])) for ids in members]
    if len({path.resolve() for path in shared}) == len(shared):
        nested = any(a != b and a in b.parents for a in shared for b in shared)
        if not nested:
            return short_names(shared)
    names = [configs[ids[0]].MODEL.META_ARCHITECTURE for ids in members]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
