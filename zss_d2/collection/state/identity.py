"""What the results in a folder were made with, so that nothing else is added to them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.utils.file_io import PathManager

from zss_d2.config.values import flatten, shown, value_of
from zss_d2.engine.config_file import FILE_KEYS
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import collect_provenance
from zss_d2.modeling.identity import is_leaky, lineage
from zss_d2.modeling.precision import Precision

if TYPE_CHECKING:
    from zss_d2.predict.options import Options
    from zss_d2.predict.predictor import Predictor
    from zss_d2.predict.words import Words

# Parts of the config that results depend on, and of them what they do not, or only by rounding.
_NODES = ("MODEL", "INPUT", "TEST")
_FREE_KEYS = {
    *("MODEL.DEVICE", "MODEL.COMPILE", "MODEL.TF32", "MODEL.CHECKPOINT_BLOCKS", *FILE_KEYS),
    *("TEST.PREDICTIONS", "TEST.PER_IMAGE", "TEST.EVAL_PERIOD", "TEST.EXPECTED_RESULTS"),
    *("TEST.BATCH", "TEST.CUDA_GRAPHS", "TEST.MAX_SCORES_MIB", "TEST.SHOW_IMAGES"),
    "TEST.FRAGMENTATION",
}
# Of options: the batch changes results by rounding only, class scores are kept beside them.
_FREE_OPTIONS = ("batch", "class_scores")
# Entries of the identity that two runs into one folder must agree in.
_FIXED = ("method", "weights", "words", "sentences", "options", "config")


def describe(
    predictor: Predictor, config: str, words: Words, options: Options, further: Mapping[str, Any]
) -> dict[str, Any]:
    """Model, weights, words, sentences, options and versions, ready for JSON.

    Args:
        config: what ``--config-file`` says.
        further: options of the command.
    """
    cfg = predictor.cfg
    checkpoint = PathManager.get_local_path(predictor.checkpoint) if predictor.checkpoint else ""
    provenance = collect_provenance(cfg, checkpoint, None)
    weights = {"checkpoint": provenance["checkpoint_sha256"]}
    for key in FILE_KEYS[1:]:
        value = value_of(cfg, key)
        is_file = isinstance(value, str) and os.path.isfile(value)
        weights[key] = _sha256(Path(value)) if is_file else value
    identity = predictor.segmentor.identity()
    own = identity.get("templates")
    content = {
        "method": provenance["method"],
        "config_file": config,
        "checkpoint": predictor.checkpoint,
        "weights": weights,
        "trained": _trained(predictor),
        "words": {
            "classes": words.classes,
            "background": words.background,
            "unknown_below": dict(words.unknown_below),
        },
        "sentences": words.templates or own,
        "options": {**asdict(options), **further},
        "config": {
            key: value
            for node in _NODES
            for key, value in flatten(cfg[node], f"{node}.").items()
            if key not in _FREE_KEYS
        }
        # What "auto" comes to here.
        | {"MODEL.AUTOCAST": Precision.from_config(cfg).of_tests},
        "versions": {
            key: provenance[key]
            for key in ("version", "commit", "uncommitted_changes", "detectron2", "torch")
        },
        "device": provenance["device"],
        "precision": provenance["precision"],
    }
    return json.loads(json.dumps(content))


def _trained(predictor: Predictor) -> dict[str, Any]:
    """What the model was trained with, and those whose weights it started from; {}: nothing.

    ``leaky``: one of these trainings looked at hidden labels.
    """
    if not any(parameter.requires_grad for parameter in predictor.segmentor.parameters()):
        return {}
    ancestors = lineage(predictor.segmentor.identity())
    names = {
        key: sorted({name for x in ancestors for name in x.get(key, ())})
        for key in ("labelled_classes", "train_classes")
    }
    return {**names, "leaky": is_leaky(*ancestors)}


def require_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `ZssError` where results of another identity are in the folder.

    Args:
        path: file that the old identity is from.
        old, new: of `describe`.
    """
    before, now = _fixed(old), _fixed(new)
    for key in now:
        if before.get(key) != now[key]:
            raise ZssError(
                f"{path.parent} holds results with another {key}: {shown(before.get(key))} there "
                f"(see {path.name}), {shown(now[key])} now; give another --output"
            )


def _fixed(identity: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for part in _FIXED:
        value = identity.get(part)
        if isinstance(value, Mapping):
            # Class names may have points in them, and nothing below these is looked at by itself.
            kept |= {f"{part}.{key}" if part != "config" else key: x for key, x in value.items()}
        else:
            kept[part] = value
    return {k: v for k, v in kept.items() if k not in {f"options.{x}" for x in _FREE_OPTIONS}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
