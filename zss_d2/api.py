"""The public way in: a model from a config and weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch

from zss_d2.analysis.device import works
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.config.model_folder import CONFIG, ModelFolder, weights_of
from zss_d2.config.values import shown
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.engine.last_checkpoint import iteration_of
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.maskclip.recommended import (
    DEFAULT_CONFIG,
    name_of,
    on_its_tower,
    without_training,
)
from zss_d2.predict.predictor import Predictor

logger = logging.getLogger(__name__)

# Keys that have an argument of their own, and its name.
_ARGUMENTS = {"MODEL.DEVICE": "device", "MODEL.WEIGHTS": "weights"}


def load_model(
    config: str | PathLike[str] | None = None,
    weights: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    opts: Sequence[str] = (),
    *,
    training_free: bool = True,
) -> Predictor:
    """The model of a config, with its weights, ready to label images.

        model.predict("scene.png", ["red dotted thing", "grass", "wood"])

    See `Predictor.predict`. Called like a Detectron2 model it takes a list of dicts, with ``image``
    (3, H, W), RGB in 0..255, and returns one dict per image, with ``sem_seg`` (K, H, W).

    Args:
        config: yaml file, such as one of ``configs/``; or a run: its folder, or the ``config.yaml``
            in there. Files that a run named by relative paths are looked for above its folder.
            Or a folder that `Predictor.save_pretrained` has written.
            None: the training-free method that docs/training_free.md recommends.
        weights: checkpoint, a file, such a folder or an address; None: that of the run, or
            ``MODEL.WEIGHTS`` of the config.
        device: "auto" (CUDA where there is a GPU, else MPS, else the CPU), or one of `torch.device`
            of these three kinds.
        opts: further config keys and values, in turn.
        training_free: where a config names no weights, and its method has some to train, let the
            recommended training-free method take its place, with the same CLIP, sizes and windows;
            a warning says so.

    Returns:
        A `Predictor`, whose ``segmentor`` is in evaluation mode.

    Raises:
        ZssError: config or weights are missing, wrong, or do not belong together; the device is
            unknown or not there; there are no weights to be found, though the method has some to
            train, and it is a run or not to be ``training_free``.
    """
    for key in opts[::2]:
        if key in _ARGUMENTS:
            raise ZssError(f"opts has {key}; give it as the argument {_ARGUMENTS[key]}")
    # Of training alone, and refused without a GPU.
    overrides = ["MODEL.DEVICE", _usable(device), "SOLVER.AMP.ENABLED", "False", *opts]
    if config is None:
        if weights is not None:
            raise ZssError("weights are those of a method; give its config too, as --config-file")
        config = DEFAULT_CONFIG
    config = expanduser(fspath(config))
    run, shared = _run_of(Path(config)), ModelFolder.at(Path(config))
    if run is None:
        cfg = load_config(config, overrides)
        folder, found = "", cfg.MODEL.WEIGHTS
    else:
        cfg = run.config(overrides)
        folder, found = str(run.path), run.checkpoint(cfg)
    if config == str(DEFAULT_CONFIG):
        cfg = on_its_tower(cfg, opts[::2])
        logger.warning("No config is given, so images are labelled by %s", name_of(cfg))
    checkpoint = found if weights is None else weights_of(expanduser(fspath(weights)))
    model = ZeroShotTrainer.build_model(cfg).eval()
    if not checkpoint and any(x.requires_grad for x in model.parameters()):
        lacking = f"{config} names no weights, and {cfg.MODEL.META_ARCHITECTURE} has some to train"
        remedy = "give a checkpoint as the argument weights, on a command line as --weights"
        if run is not None or not training_free:
            raise ZssError(f"{lacking}; {remedy}")
        cfg = without_training(cfg)
        logger.warning("%s, so %s takes its place; %s", lacking, name_of(cfg), remedy)
        model = ZeroShotTrainer.build_model(cfg).eval()
    if cfg.TEST.BACKGROUND_BELOW:
        logger.warning("TEST.BACKGROUND_BELOW is of test sets; for own words use unknown_below")
    logger.info("The weights are those of %s", checkpoint or "CLIP alone")
    loaded = ZeroShotCheckpointer(model, folder).load(checkpoint)
    model.require_setting()
    if shared and weights is None and not opts:
        _require_agreement(shared, model.identity())
    return Predictor(cfg, model, checkpoint, iteration_of(loaded))


def fastest_device() -> str:
    """The fastest kind of device that this machine has: "cuda", "mps" or "cpu"."""
    return next(kind for kind in ("cuda", "mps", "cpu") if works(kind))


def _usable(device: str | torch.device) -> str:
    """What ``MODEL.DEVICE`` is to be; raises ZssError where this machine lacks it."""
    if device == "auto":
        return fastest_device()
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cuda", "mps", "cpu"):
        raise ZssError(
            f"device is {str(device)!r}; give 'auto', 'cpu', 'mps', 'cuda', or one GPU, such as "
            "'cuda:0'"
        )
    if not works(wanted):
        raise ZssError(f"device is {str(device)!r}, which this machine lacks; give 'auto' or 'cpu'")
    return str(wanted) if wanted.type == "cuda" else wanted.type


def _require_agreement(folder: ModelFolder, built: Mapping[str, Any]) -> None:
    """Raise `ZssError` unless a folder's config gives the model that its weights belong to.

    That is, one of the same classes, sentences and CLIP.
    """
    said = folder.about()["identity"]
    keys = ("method", "classes", "train_classes", "labelled_classes", "templates", "settings")
    pairs = [(key, said.get(key), built.get(key)) for key in keys]
    clip = (said.get("clip") or {}, built.get("clip") or {})
    pairs += [(f"CLIP's {key}", *(x.get(key) for x in clip)) for key in ("name", "quick_gelu")]
    for key, theirs, ours in pairs:
        if theirs != ours:
            raise ZssError(
                f"{folder.path}: the weights are of {key} {shown(theirs)}, and {CONFIG} gives "
                f"{shown(ours)}; put back that file, or pass what is to differ as opts"
            )


def _run_of(config: Path) -> RunFolder | None:
    """The run that ``config`` is the folder or the ``config.yaml`` of; None: it is of no run."""
    if config.is_dir():
        return RunFolder(config)
    folder = RunFolder(config.parent)
    is_run = config.name == folder.config_file.name and folder.is_run
    return folder if is_run else None
