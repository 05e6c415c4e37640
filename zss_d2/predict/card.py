"""The model card of a folder: what the model was trained with, and how well it did."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from zss_d2.config.model_folder import CONFIG, sha256_of
from zss_d2.config.values import flatten
from zss_d2.config.yaml_file import read_yaml
from zss_d2.errors import ZssError
from zss_d2.evaluation.bootstrap import METRICS, bootstrap
from zss_d2.evaluation.counts import counts_file, read_counts
from zss_d2.evaluation.results import PROVENANCE, describe_protocol, read_results

logger = logging.getLogger(__name__)

_RESULTS = "results.json"
_SEED = re.compile(r"seed\d+")
# In double quotes it stands for itself in any shell.
_PLAIN = re.compile(r"[\w ,.-]+")
# Settings in which runs of one method and several seeds differ.
_OF_A_SEED = ("SEED", "OUTPUT_DIR", "MODEL.DEVICE")
# Of the provenance that is handed on; no paths.
_KEPT = ("version", "commit", "uncommitted_changes", "detectron2", "torch", "device", "precision")
_KEPT += ("seed", "checkpoint_sha256", "iteration", "protocol", "test_batch")
_LINKS = {
    "LDVC": "arXiv 2403.08426",
    "ZegCLIP": "arXiv 2212.03588",
    "MaskCLIP": "arXiv 2112.01071",
    "CLIPZSS": "arXiv 2310.02296",
}


def evidence_of(
    checkpoint: str, results: str | os.PathLike[str] | None = None
) -> dict[str, Any] | None:
    """What an evaluation says of a checkpoint, plain values for JSON; None: nothing.

    Intervals are those of `bootstrap` where the counts of single images were kept; seeds are runs
    beside that of the checkpoint, in folders ``seed0``, ``seed1``..., of the same config.

    Args:
        checkpoint: file; "": the model has no weights but CLIP's.
        results: a results.json; None: that beside the checkpoint, if there is one.

    Raises:
        ZssError: ``results`` is given and cannot be read.
    """
    path = Path(results).expanduser() if results else Path(checkpoint).parent / _RESULTS
    if results is None and (not checkpoint or not path.is_file()):
        return None
    content = read_results(path)
    provenance = content.pop(PROVENANCE)
    known = sha256_of(Path(checkpoint)) if os.path.isfile(checkpoint) else None
    if provenance.get("checkpoint_sha256") != known:
        logger.warning("%s is of another checkpoint, so the card has no figures of it", path)
        return None
    return {
        "metrics": {name: _main(metrics) for name, metrics in content.items()},
        "intervals": _intervals(path.parent, content),
        "seeds": _seeds(path.parent, content),
        PROVENANCE: {key: provenance[key] for key in _KEPT if key in provenance},
    }


def _main(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: metrics[key] for key in METRICS if key in metrics}


def _intervals(folder: Path, datasets: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in datasets:
        path = counts_file(folder, name)
        counts = read_counts(path) if path.is_file() else None
        if counts is not None and counts.images is not None:
            found[name] = {x: [i.low, i.high] for x, i in bootstrap(counts).items()}
    return found


def _seeds(folder: Path, datasets: Mapping[str, Any]) -> dict[str, Any]:
    """{data set: {metric: a value per seed}} of all seeds of a sweep; empty for a single run."""
    if not _SEED.fullmatch(folder.name):
        return {}
    own, runs = _settings(folder), []
    for other in sorted(folder.parent.iterdir()):
        if _SEED.fullmatch(other.name) and (other / _RESULTS).is_file():
            settings = _settings(other)
            runs += [read_results(other / _RESULTS)] if settings == own else []
    if len(runs) < 2:
        return {}
    return {
        name: {x: [run[name].get(x) for run in runs if name in run] for x in METRICS}
        for name in datasets
    }


def _settings(folder: Path) -> dict[str, Any]:
    try:
        _, content = read_yaml(folder / CONFIG, "the config of a run")
    except ZssError:
        return {"folder": str(folder)}
    flat = flatten(content) if isinstance(content, dict) else {"folder": str(folder)}
    return {key: value for key, value in flat.items() if key not in _OF_A_SEED}


def model_card(about: Mapping[str, Any], cfg: CfgNode, name: str) -> str:
    """Markdown with the metadata that the hub reads.

    Args:
        about: content of ``zss_model.json``.
        cfg: config of the folder.
        name: what the folder is called.
    """
    identity = about["identity"]
    parts = [
        _metadata(identity["method"]),
        f"# {name}",
        _summary(about, cfg),
        _usage(name, identity),
        "## Training",
        _training(about, cfg),
        "## Results",
        _results(about.get("results")),
        "## Licence",
        "License of these weights: **fill in**, here and in the first lines of this file. Those of "
        "CLIP and of the training images may bind whoever uses them.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(method: str) -> str:
    tags = ("zero-shot", "semantic-segmentation", "open-vocabulary", method.lower())
    return "\n".join(
        [
            *("---", "license: unknown  # fill in", "library_name: zss_d2"),
            *("pipeline_tag: image-segmentation", "tags:"),
            *(f"- {tag}" for tag in tags),
            "---",
        ]
    )


def _summary(about: Mapping[str, Any], cfg: CfgNode) -> str:
    identity, weights = about["identity"], about["weights"]
    method, clip = identity["method"], cfg.MODEL.CLIP
    known = f" ({_LINKS[method]})" if method in _LINKS else ""
    towers = (
        "Both towers of CLIP are among the weights."
        if clip.FROM_WEIGHTS
        else "CLIP is not among the weights; words that the model was not trained with need "
        f"{clip.NAME} {clip.PRETRAINED!r}."
    )
    origin = f" {about['origin']}" if about["origin"] else ""
    tag = f" ({clip.PRETRAINED})" if clip.PRETRAINED else ""
    return (
        f"Semantic segmentation with free words: {method}{known} on CLIP {clip.NAME}{tag}. "
        f"{weights['numbers'] / 1e6:.1f} M numbers in {weights['tensors']} tensors, "
        f"{weights['trained'] / 1e6:.1f} M of them trained. {towers}{origin}"
    )


def _usage(name: str, identity: Mapping[str, Any]) -> str:
    words = list(identity["classes"][:3])
    shown = " ".join(f'"{word}"' if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)
    folder, config = shlex.quote(name), shlex.quote(f"{name}/{CONFIG}")
    return f"""```python
import zss_d2

model = zss_d2.load_model({json.dumps(name, ensure_ascii=False)})  # this folder
model.predict("photo.jpg", {words!r})
```

```bash
zss predict photos --config-file {folder} --classes {shown} --output out
python train_net.py --eval-only --config-file {config}
```"""


def _training(about: Mapping[str, Any], cfg: CfgNode) -> str:
    identity = about["identity"]
    labelled, names = identity["labelled_classes"], identity["train_classes"]
    unseen = [x for x in identity["classes"] if x not in labelled]
    sentences = identity.get("templates") or identity.get("text", {}).get("templates") or ()
    lines = [
        f"- data: {', '.join(cfg.DATASETS.TRAIN)} "
        f"({MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get('benchmark', 'of others')})",
        f"- classes: {len(identity['classes'])}, labels of {len(labelled)}, names of {len(names)} "
        "in the losses",
        f"- labels that training did not see: {', '.join(unseen) if unseen else 'none'}",
        f"- sentences: {_listed(sentences)}" if sentences else "- sentences: learned prompts",
    ]
    if about["iteration"] is not None:
        lines.append(f"- iterations: {about['iteration'] + 1}")
    return "\n".join(lines)


def _listed(sentences: Sequence[str]) -> str:
    shown = ", ".join(f"`{x}`" for x in sentences[:3])
    return shown if len(sentences) <= 3 else f"{shown} and {len(sentences) - 3} more"


def _results(results: Mapping[str, Any] | None) -> str:
    if not results:
        return "None are known of these very weights."
    provenance, parts = results[PROVENANCE], []
    for name, metrics in results["metrics"].items():
        intervals = results["intervals"].get(name, {})
        seeds = {x: _numbers(v) for x, v in results["seeds"].get(name, {}).items()}
        parts.append(f"{name}, percent:\n\n{_table(metrics, intervals, seeds)}")
    code = provenance.get("commit") or provenance.get("version") or "unknown"
    facts = (
        ("protocol", describe_protocol(provenance["protocol"])),
        ("precision", provenance.get("precision")),
        ("seed", provenance.get("seed")),
        ("device", provenance.get("device")),
        ("code", f"zss_d2 {code}, Detectron2 {provenance.get('detectron2')}"),
        ("torch", provenance.get("torch")),
    )
    parts.append("\n".join(f"- {key}: {value}" for key, value in facts if value is not None))
    return "\n\n".join(parts)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [x for x in values if x is not None]


def _table(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]],
    seeds: Mapping[str, Sequence[float]],
) -> str:
    heads = ["metric", "these weights"]
    several = any(len(values) > 1 for values in seeds.values())
    if intervals:
        heads.append("95 % interval over test images")
    if several:
        count = max(map(len, seeds.values()))
        heads.append(f"mean ± standard deviation of {count} seeds")
    rows = [heads, ["---"] * len(heads)]
    for name, value in metrics.items():
        row = [name, _shown(value)]
        if intervals:
            row.append("–".join(map(_shown, intervals.get(name, ()))) or "–")
        if several:
            row.append(_spread(seeds.get(name, ())))
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.1f}"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "–"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
