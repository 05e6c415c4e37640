"""Write a model to a folder that can be shared, and say in it what the model is.

The files are those of `zss_d2.config.model_folder`: safetensors, yaml, JSON and a model card. A
folder holds all that its model predicts with. It names no path of the machine that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from safetensors.torch import save
from torch import Tensor

import zss_d2
from zss_d2.config.model_folder import (
    ABOUT,
    CARD,
    CONFIG,
    FORMAT,
    WEIGHTS,
    ModelFolder,
)
from zss_d2.config.values import value_of
from zss_d2.data.spec.benchmark import Benchmark
from zss_d2.data.spec.custom import load_custom
from zss_d2.data.spec.locations import dataset_name
from zss_d2.engine.config_file import FILE_KEYS
from zss_d2.errors import ZssError
from zss_d2.predict.card import evidence_of, model_card
from zss_d2.utils.command_line import check_output
from zss_d2.utils.writing import write_atomic

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor

logger = logging.getLogger(__name__)

# Written last, and removed first where a folder is written over: without it there is no model.
_ORDER = (CARD, CONFIG, WEIGHTS, ABOUT)


def save_pretrained(
    predictor: Predictor,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    results: str | os.PathLike[str] | None = None,
    origin: str = "",
) -> Path:
    """Write the model of a `Predictor` to a folder; see `zss_d2.config.model_folder`.

    Two-tower methods take both towers of CLIP along. A student of CLIP-ZSS goes without: names that
    it was not trained with need the CLIP that the folder names.

    Args:
        predictor: what `zss_d2.load_model` returns.
        folder: made if need be.
        overwrite: replace the model that is there.
        results: the results.json of the model, for its card; None: the one beside its checkpoint.
            One of another checkpoint is left out, with a warning.
        origin: where the weights come from, a sentence for the card; "": a training here.

    Returns:
        the folder.

    Raises:
        ZssError: the folder holds something else, or a model and no ``overwrite``; it cannot be
            written; ``results`` cannot be read.
    """
    folder = Path(folder).expanduser()
    require_room(folder, overwrite)
    model, known = predictor.segmentor, _folder_of(predictor.checkpoint)
    state, keys = model.to_share()
    descriptions = _descriptions(predictor.cfg)
    cfg = _config_to_share(predictor.cfg, keys, folder, list(descriptions))
    about: dict[str, Any] = {
        "format": FORMAT,
        "identity": _without_paths(model.identity()),
        "iteration": predictor.iteration,
        "origin": origin or known.get("origin", ""),
        "written_with": f"zss_d2 {zss_d2.__version__}",
    }
    evidence = evidence_of(predictor.checkpoint, results) or known.get("results")
    if evidence:
        about["results"] = evidence
    about["weights"] = {
        "tensors": len(state),
        "numbers": sum(x.numel() for x in state.values()),
        "trained": sum(
            x.numel() for name, x in model.named_parameters() if x.requires_grad and name in state
        ),
    }
    # Not by save_file, which puts a file of its own, readable by its owner alone, in the place.
    data = save(_plain(state), {"format": "pt"})
    about["weights_sha256"] = hashlib.sha256(data).hexdigest()
    texts = {
        **{name: _yaml(benchmark) for name, benchmark in descriptions.items()},
        CONFIG: cfg.dump(),
        CARD: model_card(about, cfg, folder.resolve().name),
        ABOUT: json.dumps(about, indent=2) + "\n",
    }
    for name in reversed(_ORDER):
        (folder / name).unlink(missing_ok=True)
    write_atomic(folder / WEIGHTS, lambda temporary: temporary.write_bytes(data))
    for name, text in texts.items():
        write_atomic(folder / name, _writer(text))
    logger.info("%s: %s, %.1f MB", folder, type(model).__name__, len(data) / 1e6)
    return folder


def require_room(folder: Path, overwrite: bool) -> None:
    """Raise `ZssError` unless a model may be written to a folder, which need not exist."""
    check_output(folder, folder=True)
    there = sorted(x.name for x in folder.iterdir()) if folder.is_dir() else []
    if not there:
        return
    if ModelFolder.at(folder) is None:
        raise ZssError(f"{folder} holds other things, such as {there[0]}; give a folder of its own")
    if not overwrite:
        raise ZssError(
            f"{folder} holds a model; give another folder, or overwrite=True, on a command line "
            "--overwrite, to replace it"
        )


def _folder_of(checkpoint: str) -> Mapping[str, Any]:
    """What the folder says that a checkpoint lies in; empty where it is that of a run."""
    path = Path(checkpoint)
    folder = ModelFolder.at(path) if checkpoint and path.name == WEIGHTS else None
    return folder.about() if folder else {}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU and each with memory of its own, as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if place in places else value
        places.add(place)
    return plain


def _config_to_share(
    cfg: CfgNode, keys: Mapping[str, Any], folder: Path, descriptions: list[str]
) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in {
        **keys,
        "MODEL.WEIGHTS": WEIGHTS,
        # Not that of whoever writes the folder; what is not there is said in a line.
        "MODEL.DEVICE": "cuda",
        "MODEL.COMPILE": "",
        "OUTPUT_DIR": f"output/{folder.resolve().name or 'model'}",
        "DATASETS.CUSTOM": tuple(descriptions),
    }.items():
        _set(cfg, key, value)
    for key in FILE_KEYS:
        _set(cfg, key, _bare(value_of(cfg, key)))
    return cfg


def _set(cfg: CfgNode, key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        cfg = cfg[part]
    cfg[last] = value


def _bare(named: str) -> str:
    """The name of a file without the folders of this machine; a tag or an address as it is."""
    return named if "://" in named else Path(named).name if named else ""


def _without_paths(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value)
        if isinstance(value, Mapping)
        else _bare(value)
        if key == "pretrained"
        else value
        for key, value in identity.items()
    }


def _descriptions(cfg: CfgNode) -> dict[str, Benchmark]:
    """Custom data sets that the config uses, by the file that describes each in the folder."""
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    found = {}
    for path in cfg.DATASETS.CUSTOM:
        benchmark = load_custom(path).benchmark
        if used.intersection(dataset_name(benchmark, x) for x in benchmark.splits.values()):
            found[f"dataset_{benchmark.name}.yaml"] = benchmark
    return found


def _yaml(benchmark: Benchmark) -> str:
    """A description of a data set by which a model knows its classes, wherever its images are."""
    content = {
        "name": benchmark.name,
        "title": benchmark.title,
        "classes": list(benchmark.classes),
        "things": list(benchmark.things),
        "synonyms": {name: list(words) for name, words in benchmark.synonyms.items()},
        "unseen": list(benchmark.unseen_names),
        "ignore_label": benchmark.ignore_label,
        "splits": {
            name: {
                "folder": name,
                "expected_images": len(DatasetCatalog.get(dataset_name(benchmark, split))),
            }
            for name, split in benchmark.splits.items()
        },
    }
    return (
        "# Of the data set that the model was trained with: its classes. Images are looked for in\n"
        f"# zss/{benchmark.name} below DETECTRON2_DATASETS; DATASETS.CUSTOM can name others.\n"
        + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    )


def _writer(text: str):
    return lambda temporary: temporary.write_text(text, encoding="utf-8")
