"""The config of a run: defaults, ``--config-file`` and ``KEY VALUE`` overrides."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from zss_d2.config.defaults import default_config, validate_config
from zss_d2.config.earlier import updated
from zss_d2.config.merge import merge_nested, set_value
from zss_d2.config.model_folder import WEIGHTS, ModelFolder, weights_of
from zss_d2.config.rules import without_effect
from zss_d2.config.values import flatten, listed, shown, value_of
from zss_d2.config.yaml_file import read_with_bases
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.data.spec.locations import dataset_name
from zss_d2.data.spec.requirements import require_known
from zss_d2.errors import ZssError
from zss_d2.utils.installation import shipped_config

logger = logging.getLogger(__name__)

# Keys that can name a file, beside DATASETS.CUSTOM.
FILE_KEYS = ("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.CLIP_ZSS.ENCODER.WEIGHTS")


def parse_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """As ``parser.parse_args``, but flags may also stand between and behind ``KEY VALUE`` pairs.

    Args:
        parser: one whose last argument is ``opts``, as that of Detectron2 is, which takes all that
            follows the first pair.
        argv: None: arguments of the process.
    """
    args = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    pairs: list[str] = []
    while True:
        rest = args.opts[1:] if args.opts[:1] == ["--"] else args.opts
        at = next((i for i, word in enumerate(rest) if _is_flag(word, i)), None)
        pairs += rest[:at]
        if at is None:
            args.opts = pairs
            return args
        args.opts = []
        parser.parse_args(rest[at:], args)


def _is_flag(word: str, position: int) -> bool:
    """Values may start with a dash, as negative numbers do, but no key does."""
    return word.startswith("--") or (word.startswith("-") and position % 2 == 0)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `ZssError` for numbers of processes and machines that cannot be."""
    for flag, value in (("--num-gpus", args.num_gpus), ("--num-machines", args.num_machines)):
        if value < 1:
            what = "processes on this machine" if flag == "--num-gpus" else "machines in all"
            on_cpu = "; to run without a GPU, add MODEL.DEVICE cpu" if flag == "--num-gpus" else ""
            raise ZssError(f"{flag} is {value}; give the number of {what}, 1 or more{on_cpu}")
    if not 0 <= args.machine_rank < args.num_machines:
        raise ZssError(
            f"--machine-rank is {args.machine_rank} and --num-machines {args.num_machines}; give "
            f"one of 0..{args.num_machines - 1}, another one on every machine"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ZssError(
            f"--dist-url is 'auto' and --num-machines {args.num_machines}; give all of them the "
            "address of the first, such as tcp://HOST:29500"
        )


def check_device(device: str, processes: int = 1) -> None:
    """Raise `ZssError` unless this machine has the ``MODEL.DEVICE``, for so many processes."""
    kind, _, index = device.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ZssError("MODEL.DEVICE is 'mps', which this machine has not; add MODEL.DEVICE cpu")
    if kind != "cuda":
        return
    gpus = torch.cuda.device_count()
    if gpus == 0:
        raise ZssError(
            f"MODEL.DEVICE is {device!r} and this machine has 0 GPUs; add MODEL.DEVICE cpu"
        )
    if index and int(index) >= gpus:
        raise ZssError(
            f"MODEL.DEVICE is {device!r} and this machine has {gpus} GPUs; use one of "
            f"{listed(f'cuda:{i}' for i in range(gpus))}"
        )
    if index and processes > 1:
        raise ZssError(
            f"MODEL.DEVICE is {device!r} and --num-gpus {processes}; one GPU serves one process, "
            "give MODEL.DEVICE cuda"
        )


def load_config(path: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    """Merge defaults, a config file and overrides into a frozen config.

    Args:
        path: yaml file; its ``_BASE_`` is read first. What does not exist here may be the name of a
            config of the project, such as ``ldvc_voc``, or its path there.
        opts: config keys and values, in turn.

    Raises:
        ZssError: missing file, unknown key, value of another type, impossible setting.
    """
    if not str(path):
        raise ZssError(
            "--config-file is missing; give a file or the name of a config of the project, for a "
            "method and a data set, such as --config-file ldvc_mini"
        )
    cfg = default_config()
    path = found_config(path)
    files = read_with_bases(path)
    own = set(flatten(files[-1][1]))
    if _is_dump(own):
        own = set()
        files[-1] = (Path(path), updated(files[-1][1], str(path)))
    for file, content in files:
        merge_nested(cfg, content, str(file))
    # What the command line turns off below had its effect in the file, and the reverse.
    useless = without_effect(cfg, own)
    overrides = pairs_of(opts)
    for key, value in overrides.items():
        set_value(cfg, key, value, "command line")
    said = "MODEL.META_ARCHITECTURE" in overrides
    check_method(cfg.MODEL.META_ARCHITECTURE, "" if said else f"{path}: ")
    try:
        validate_config(cfg, given=useless.union(overrides))
    except ZssError as error:
        # Of several configs: which one it is.
        if any(key in str(error) for key in overrides):
            raise
        raise ZssError(f"{path}: {error}") from error
    # No shell expands the ~ of a yaml.
    for key in ("OUTPUT_DIR", *FILE_KEYS):
        value = value_of(cfg, key)
        if value and value.startswith("~"):
            set_value(cfg, key, os.path.expanduser(value), "~")
    if folder := ModelFolder.at(Path(path)):
        _find_in_folder(cfg, folder.path, overrides)
    cfg.MODEL.WEIGHTS = weights_of(cfg.MODEL.WEIGHTS)
    # The config is written down for later, and read again from anywhere.
    cfg.DATASETS.CUSTOM = tuple(
        os.path.abspath(os.path.expanduser(path)) for path in cfg.DATASETS.CUSTOM
    )
    register_custom(cfg.DATASETS.CUSTOM)
    require_known(cfg)
    if "DATASETS.CUSTOM" in own.union(overrides):
        _warn_of_unused_descriptions(cfg)
    cfg.freeze()
    return cfg


def found_config(path: str | Path) -> Path:
    """The config file that a path or a name means; a line says if it is one of the project's."""
    shipped = None if os.path.exists(path) else shipped_config(path)
    if shipped is None:
        return Path(path)
    logger.info("%s is a config of the project: %s", path, shipped)
    return shipped


def _find_in_folder(cfg: CfgNode, folder: Path, given: Collection[str]) -> None:
    """What the config of a model folder names by its bare name lies beside it, wherever that is.

    Args:
        given: keys that somebody names for this very run.
    """
    if "MODEL.WEIGHTS" not in given and cfg.MODEL.WEIGHTS == WEIGHTS:
        cfg.MODEL.WEIGHTS = str(folder / WEIGHTS)
    if "DATASETS.CUSTOM" not in given:
        cfg.DATASETS.CUSTOM = tuple(
            str(folder / name) if Path(name).name == name else name for name in cfg.DATASETS.CUSTOM
        )


def pairs_of(opts: Sequence[Any]) -> dict[str, Any]:
    """``KEY VALUE ...`` as a dict; raises ZssError where they are no pairs."""
    for word in opts[::2]:
        key, equals, value = str(word).partition("=")
        if equals and key.isupper():
            raise ZssError(
                f"command line: {shown(word)}; leave a blank instead of =: {key} {value}"
            )
    if len(opts) % 2:
        raise ZssError(
            f"command line: {shown(' '.join(map(str, opts)))} is an odd number of words; give one "
            "value for every key, in quotes if there are blanks in it"
        )
    return dict(zip(map(str, opts[::2]), opts[1::2], strict=True))


def check_method(name: str, source: str = "") -> None:
    """Raise `ZssError` unless a method of that name is registered, here or by somebody else.

    Args:
        source: what the message starts with.
    """
    methods = sorted(
        known for known, part in META_ARCH_REGISTRY if not part.__module__.startswith("detectron2.")
    )
    if name in methods:
        return
    plain = {method.lower(): method for method in methods}
    near = difflib.get_close_matches(name.replace("_", "").lower(), plain, n=1)
    meant = f" (did you mean {plain[near[0]]!r}?)" if near else ""
    raise ZssError(
        f"{source}MODEL.META_ARCHITECTURE is {shown(name)}, which is no method{meant}; use one of "
        f"{listed(methods, 20)}"
    )


def _is_dump(keys: Collection[str]) -> bool:
    """Whether a file names every key, as ``config.yaml`` of a run, and so none in particular."""
    everything = set(flatten(default_config()))
    return len(everything.difference(keys)) < len(everything) / 2


def _warn_of_unused_descriptions(cfg: CfgNode) -> None:
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    for path in cfg.DATASETS.CUSTOM:
        benchmark = load_custom(path).benchmark
        names = [dataset_name(benchmark, split) for split in benchmark.splits.values()]
        if not used.intersection(names):
            logger.warning(
                "DATASETS.CUSTOM has %s, but DATASETS.TRAIN and TEST name none of %s",
                path,
                listed(names),
            )
