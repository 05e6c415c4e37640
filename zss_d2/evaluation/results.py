"""results.json: metrics of every test set with the provenance of the run."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

from zss_d2.config.rules import value_of, without_effect
from zss_d2.errors import ZssError
from zss_d2.evaluation.provenance import code_identity
from zss_d2.modeling.inference import InferenceProtocol
from zss_d2.modeling.precision import Precision
from zss_d2.modeling.self_training.settings import LEAK_IN_WORDS, SelfTrainingSettings
from zss_d2.utils.writing import write_atomic

PROVENANCE = "provenance"
_PACKAGE = Path(__file__).resolve().parent.parent
_NUMBER = (int, float)
_NOTHING = type(None)
_PLAIN = (str, *_NUMBER, _NOTHING)
# What those who read the file rely on: the types of values, those of a mapping below its key.
_NEEDED = {
    "config_sha256": str,
    "iteration": (int, _NOTHING),
    "protocol": {
        "setting": str,
        "min_size": int,
        "max_size": int,
        "slide": (dict, _NOTHING),
        "flip": bool,
        "scales": list,
        "seen_bias": _NUMBER,
    },
}
_OPTIONAL = {"method": str, "seed": int} | dict.fromkeys(
    ("version", "commit", "uncommitted_changes", "detectron2", "torch", "device", "precision"),
    _PLAIN,
)


def check_dataset_name(name: str) -> None:
    """Raise `ZssError` for the one name that a test set cannot have in the file."""
    if name == PROVENANCE:
        raise ZssError(
            f"DATASETS.TEST: a data set cannot be called {name!r}, which results.json uses for "
            "where its numbers come from; register it under another name"
        )


def write_results(
    path: Path, results: Mapping[str, Mapping[str, float]], provenance: Mapping[str, Any]
) -> None:
    """Write ``{data set: {metric: value}, "provenance": {...}}`` atomically; NaN becomes null.

    Raises:
        ZssError: a data set is called "provenance".
    """
    for name in results:
        check_dataset_name(name)
    content = {
        name: {key: None if math.isnan(value) else value for key, value in metrics.items()}
        for name, metrics in results.items()
    }
    content[PROVENANCE] = dict(provenance)
    text = json.dumps(content, indent=2) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_results(path: Path) -> dict[str, Any]:
    """Read what `write_results` wrote; an undefined metric is None.

    Raises:
        ZssError: the file is missing, or not of this kind.
    """
    folder = path.parent
    if not path.is_file():
        raise ZssError(f"{folder} is no folder of a finished run: {path.name} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        problem = _problem(content)
    except (ValueError, RecursionError) as error:
        problem = f"it is no JSON ({type(error).__name__})"
    if problem:
        raise ZssError(f"{path} cannot be read: {problem}; {evaluate_again(folder)}")
    return content


def evaluate_again(folder: Path) -> str:
    """The remedy for what an evaluation has written."""
    return (
        "evaluate the run again with train_net.py --eval-only --resume --config-file "
        f"{folder / 'config.yaml'} OUTPUT_DIR {folder}"
    )


def _problem(content: object) -> str:
    """What keeps ``content`` from being that of the file; empty if nothing does."""
    if problem := _unlike(content, {PROVENANCE: _NEEDED}, ""):
        return problem
    provenance = content[PROVENANCE]
    given = {key: kind for key, kind in _OPTIONAL.items() if key in provenance}
    if problem := _unlike(provenance, given, PROVENANCE):
        return problem
    slide, scales = provenance["protocol"]["slide"], provenance["protocol"]["scales"]
    if slide is not None and (
        problem := _unlike(slide, {"crop": int, "stride": int}, "provenance.protocol.slide")
    ):
        return problem
    if not all(isinstance(scale, _NUMBER) for scale in scales):
        return f"provenance.protocol.scales is {reprlib.repr(scales)}"
    if len(content) == 1:
        return "it has the numbers of no data set"
    for name, metrics in content.items():
        if name != PROVENANCE and (problem := _unlike(metrics, _metric_types(metrics), name)):
            return problem
    return ""


def _metric_types(metrics: object) -> Mapping[str, object]:
    return dict.fromkeys(metrics if isinstance(metrics, Mapping) else (), (*_NUMBER, _NOTHING))


def _unlike(value: object, wanted: Any, name: str) -> str:
    """Where a value is not of the types that are wanted; ``name`` is its own."""
    kind = dict if isinstance(wanted, Mapping) else wanted
    if not isinstance(value, kind):
        return f"{name or 'the content'} is {reprlib.repr(value)}"
    for key, inner in wanted.items() if isinstance(wanted, Mapping) else ():
        place = f"{name}.{key}" if name else key
        if key not in value:
            return f"{place} is missing"
        if problem := _unlike(value[key], inner, place):
            return problem
    return ""


def collect_provenance(
    cfg: CfgNode, checkpoint: str, iteration: int | None, doubts: Sequence[str] = ()
) -> dict[str, Any]:
    """What one needs to know to get the same numbers again.

    Args:
        cfg: the whole configuration.
        checkpoint: path of the evaluated weights, "" for those in memory.
        iteration: finished training iterations; None if unknown.
        doubts: `Identified.doubts` of the model.
    """
    return {
        "method": cfg.MODEL.META_ARCHITECTURE,
        **code_identity(_PACKAGE),
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
        "device": _device_name(cfg.MODEL.DEVICE),
        "precision": Precision.from_config(cfg).in_words(training=False),
        "config_sha256": config_hash(cfg),
        "seed": cfg.SEED,
        "checkpoint": checkpoint,
        "checkpoint_sha256": _file_hash(checkpoint) if checkpoint else None,
        "iteration": iteration,
        "protocol": protocol_of(cfg, doubts),
        # Changes numbers by rounding only, and is no switch of the protocol therefore.
        "test_batch": InferenceProtocol.from_config(cfg).batch_on(cfg.MODEL.DEVICE),
    }


def protocol_of(cfg: CfgNode, doubts: Sequence[str] = ()) -> dict[str, Any]:
    """The switches that change the numbers of one and the same model.

    Args:
        doubts: `Identified.doubts` of the model, which the config cannot know.
    """
    slide = cfg.TEST.SLIDE
    return {
        "setting": cfg.ZERO_SHOT.SETTING,
        **_self_training(cfg),
        # Only where it was used: such scores are upper bounds.
        **({"leaky_oracle": list(oracle)} if (oracle := cfg.ZERO_SHOT.LEAKY_ORACLE) else {}),
        **({"weights_trained_with": list(doubts)} if doubts else {}),
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "antialias": cfg.INPUT.ANTIALIAS,
        "slide": {"crop": slide.CROP, "stride": slide.STRIDE} if slide.ENABLED else None,
        "flip": cfg.TEST.FLIP,
        "scales": list(cfg.TEST.SCALES),
        "seen_bias": cfg.TEST.SEEN_BIAS,
        "background_below": cfg.TEST.BACKGROUND_BELOW,
        **_tokens_and_names(cfg),
        "vocabulary": "all classes of the test set, seen and unseen",
        "ignored": "pixels with the ignore label count nowhere, classes without ground truth "
        "in no mean",
    }


def _self_training(cfg: CfgNode) -> dict[str, Any]:
    """Where pseudo labels of a transductive training stood, and whether that is a leak."""
    settings = SelfTrainingSettings.from_config(cfg)
    if settings is None:
        return {}
    return {"self_training": {**settings.origin(), "leaky": settings.leaky}}


def _tokens_and_names(cfg: CfgNode) -> dict[str, Any]:
    """By which names classes go; of a method without training also which tokens they meet.

    Those of a trained method are what its weights were trained with.
    """
    clip, words = cfg.MODEL.CLIP, "MODEL.MASKCLIP.WORDS"
    names = {"synonyms": clip.SYNONYMS}
    keys = ["DENSE_TOKENS", *(f"DENSE.{key}" for key in clip.DENSE)]
    useless = without_effect(cfg, [words, *(f"MODEL.CLIP.{key}" for key in keys)])
    if words in useless:
        return names
    return {
        "dense_tokens": {
            key: value_of(clip, key) for key in keys if f"MODEL.CLIP.{key}" not in useless
        },
        "position_resize": clip.POSITION_RESIZE,
        "sentences": clip.TEMPLATE_SET or list(clip.TEMPLATES),
        **names,
        "words": {name: own for name, *own in cfg.MODEL.MASKCLIP.WORDS},
    }


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """One line for the switches that are numbers, such as a heading needs."""
    slide, below = protocol["slide"], protocol.get("background_below", 0)
    oracle, doubts = protocol.get("leaky_oracle"), protocol.get("weights_trained_with")
    sizes = f"{protocol['min_size']}..{protocol['max_size']} px"
    leaky = protocol.get("self_training", {}).get("leaky", False)
    parts = [
        *([f"LEAKY ORACLE {' and '.join(oracle)}"] if oracle else []),
        f"{protocol['setting']} ({LEAK_IN_WORDS})" if leaky else protocol["setting"],
        *([f"WEIGHTS TRAINED WITH {' and '.join(doubts)}"] if doubts else []),
        f"short edge {sizes}" if protocol["min_size"] else "original size",
        f"windows {slide['crop']}/{slide['stride']} px" if slide else "whole image",
        "flip" if protocol["flip"] else "no flip",
        f"scales {', '.join(f'{scale:g}' for scale in protocol['scales'])}",
        f"seen bias {protocol['seen_bias']:g}",
        # Runs of earlier versions do not say these; they all had the first of each.
        *([] if protocol.get("antialias", True) else ["no antialiasing"]),
        *_described_tokens(protocol),
        *([f"background below {below:g}"] if below else []),
    ]
    return ", ".join(parts)


def _described_tokens(protocol: Mapping[str, Any]) -> Iterator[str]:
    """`_tokens_and_names` in words."""
    if "dense_tokens" in protocol:
        name, *settings = protocol["dense_tokens"].items()
        text = ", ".join(f"{key.removeprefix('DENSE.')} {value}" for key, value in settings)
        yield f"dense tokens {name[1]}" + (f" ({text})" if text else "")
        yield f"{protocol['position_resize']} positions"
    if sentences := protocol.get("sentences"):
        if isinstance(sentences, str):
            yield f"sentences {sentences}"
        else:
            yield f"{len(sentences)} sentences" if sentences[1:] else f"sentence {sentences[0]!r}"
    if "synonyms" in protocol:
        yield "class names and synonyms" if protocol["synonyms"] else "plain class names"
    for name, own in protocol.get("words", {}).items():
        yield f"{len(own)} words for {name}"


def config_hash(cfg: CfgNode) -> str:
    """SHA-256 of the whole configuration."""
    return hashlib.sha256(cfg.dump().encode()).hexdigest()


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _file_hash(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
