"""What detectron2_lite leaves out says how to install upstream, and is there in upstream."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import detectron2
import numpy as np
import pytest
from detectron2.config import get_cfg
from packaging.requirements import Requirement
from torch import nn

IS_LITE = "lite" in detectron2.__version__
HINT = "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
MODULES = ["detectron2.structures.boxes", "detectron2.layers.nms", "detectron2.utils.visualizer"]
NAMES = [
    ("detectron2.structures", "Boxes"),
    ("detectron2.layers", "get_norm"),
    ("detectron2.config", "LazyConfig"),
    ("detectron2.utils.events", "_CURRENT_STORAGE_STACK"),
    ("detectron2.modeling.backbone", "FPN"),
    ("detectron2.modeling", "build_sem_seg_head"),
    ("detectron2.modeling", "SEM_SEG_HEADS_REGISTRY"),
    ("detectron2.data.transforms", "ResizeScale"),
    ("detectron2.data.transforms", "FixedSizeCrop"),
    ("detectron2.data.transforms", "RandomBrightness"),
    ("detectron2.data.transforms", "RandomContrast"),
    ("detectron2.data.transforms", "RandomSaturation"),
    ("detectron2.data.detection_utils", "check_image_size"),
    ("detectron2.engine", "AMPTrainer"),
    ("detectron2.engine", "create_ddp_model"),
    ("detectron2.engine", "default_writers"),
    ("detectron2.evaluation", "DatasetEvaluators"),
    ("detectron2.evaluation", "inference_context"),
    ("detectron2.evaluation", "verify_results"),
    ("detectron2.solver", "build_lr_scheduler"),
    ("detectron2.solver", "build_optimizer"),
    ("detectron2.utils.comm", "get_local_size"),
    ("detectron2.utils.env", "TORCH_VERSION"),
]
# Arguments of upstream's that the stand-in does not take.
ARGUMENTS = [
    ("detectron2.data", "build_detection_test_loader", "sampler"),
    ("detectron2.data", "build_detection_train_loader", "collate_fn"),
    ("detectron2.data", "get_detection_dataset_dicts", "filter_empty"),
    ("detectron2.data", "DatasetFromList", "serialize"),
    ("detectron2.data.samplers", "TrainingSampler", "shuffle"),
    ("detectron2.data.transforms", "ResizeShortestEdge", "sample_style"),
    ("detectron2.engine", "SimpleTrainer", "gather_metric_period"),
    ("detectron2.engine.hooks", "IterationTimer", "warmup_iter"),
    ("detectron2.engine.hooks", "LRScheduler", "scheduler"),
    ("detectron2.evaluation", "SemSegEvaluator", "num_classes"),
    ("detectron2.evaluation", "SemSegEvaluator", "sem_seg_loading_fn"),
    ("detectron2.solver", "WarmupParamScheduler", "rescale_interval"),
    ("detectron2.solver", "get_default_optimizer_params", "overrides"),
    ("detectron2.utils.comm", "all_gather", "group"),
    ("detectron2.utils.comm", "gather", "dst"),
    ("detectron2.utils.logger", "setup_logger", "color"),
]


def hint_in(error: BaseException, name: str) -> bool:
    return HINT in str(error) and name in str(error)


@pytest.mark.parametrize("module", MODULES)
def test_missing_modules(module: str) -> None:
    if not IS_LITE:
        assert importlib.util.find_spec(module) is not None
        return
    with pytest.raises(ImportError) as caught:
        importlib.import_module(module)
    assert hint_in(caught.value, module)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_missing_names(module: str, name: str) -> None:
    owner = importlib.import_module(module)
    statement = f"from {module} import {name}"
    if not IS_LITE:
        exec(statement, {})
        return
    with pytest.raises(ImportError) as from_import:
        exec(statement, {})
    assert hint_in(from_import.value, f"{module}.{name}")
    with pytest.raises(AttributeError) as access:
        getattr(owner, name)
    assert hint_in(access.value, f"{module}.{name}")
    assert not hasattr(owner, name)


@pytest.mark.parametrize(("module", "name", "argument"), ARGUMENTS)
def test_missing_arguments(module: str, name: str, argument: str) -> None:
    function = getattr(importlib.import_module(module), name)
    if not IS_LITE:
        assert argument in inspect.signature(function).parameters
        return
    with pytest.raises(TypeError) as caught:
        function(**{argument: 1})
    assert hint_in(caught.value, f"argument '{argument}' of ")
    assert hint_in(caught.value, name)


def ask_for_what_only_upstream_does() -> dict[str, Callable[[], object]]:
    """Calls whose names and arguments the stand-in has, but not what they ask for."""
    data, transforms, engine, evaluation = (
        importlib.import_module(f"detectron2.{name}")
        for name in ("data", "data.transforms", "engine", "evaluation")
    )
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 50.0, 1.0]]
    trainer = engine.DefaultTrainer.__new__(engine.DefaultTrainer)
    trainer.cfg = cfg
    one = {"sampler": data.samplers.InferenceSampler(1), "total_batch_size": 1}
    return {
        "the constructor of DefaultTrainer": lambda: engine.DefaultTrainer(cfg),
        "TEST.EXPECTED_RESULTS": lambda: trainer.train(),
        "from a config": lambda: data.build_detection_train_loader(cfg, mapper=dict),
        "aspect_ratio_grouping": lambda: data.build_detection_train_loader([1], mapper=None, **one),
        "DatasetMapper": lambda: data.build_detection_test_loader(cfg, "some_set"),
        "what a mapper rejects": lambda: data.MapDataset([1], lambda item: None)[0],
        "ResizeTransform of float32": lambda: transforms.ResizeTransform(1, 1, 2, 2).apply_image(
            np.zeros((1, 1), np.float32)
        ),
        "without one evaluator": lambda: evaluation.inference_on_dataset(nn.Identity(), [], None),
    }


@pytest.mark.skipif(not IS_LITE, reason="upstream does all of it")
@pytest.mark.parametrize("what", list(ask_for_what_only_upstream_does()) if IS_LITE else [])
def test_what_is_not_done_carries_the_hint(what: str) -> None:
    with pytest.raises(NotImplementedError) as caught:
        ask_for_what_only_upstream_does()[what]()
    assert hint_in(caught.value, what)


def test_every_public_name_of_the_slice_carries_the_hint() -> None:
    """But for classes whose constructor is that of a library, and functions that take anything."""
    if not IS_LITE:
        return
    others = {"CfgNode", "PeriodicCheckpointer", "SizeMismatchError", "create_ddp_model"}
    others |= {"DetectionCheckpointer", "Metadata"}
    tried = 0
    for info in pkgutil.walk_packages(detectron2.__path__, "detectron2."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == info.name and callable(value)
            if name.startswith("_") or "._" in info.name or not own or name in others:
                continue
            if inspect.isabstract(value) or getattr(value, "__init__", 0) is object.__init__:
                continue  # abstract, without a constructor
            with pytest.raises(TypeError) as caught:
                value(no_such_argument=1)
            assert hint_in(caught.value, f"'no_such_argument' of {info.name}."), name
            tried += 1
    assert tried > 60


def test_methods_carry_the_hint_and_errors_from_inside_are_left_alone() -> None:
    def callback(image: object) -> None:
        raise TypeError("callback() got an unexpected keyword argument 'other'")

    loader = importlib.import_module("detectron2.data").MapDataset([1], callback)
    with pytest.raises(TypeError, match="callback") as inside:
        loader[0]
    assert "pip install" not in str(inside.value)
    trainer = importlib.import_module("detectron2.engine").DefaultTrainer
    with pytest.raises(TypeError) as caught:
        trainer.auto_scale_workers(None, 1, no_such_argument=1)
    assert not IS_LITE or hint_in(caught.value, "DefaultTrainer.auto_scale_workers")


def test_top_level_attribute() -> None:
    if IS_LITE:
        with pytest.raises(ImportError, match="model_zoo") as caught:
            exec("from detectron2 import model_zoo", {})
        assert hint_in(caught.value, "detectron2.model_zoo")
    else:
        assert importlib.util.find_spec("detectron2.model_zoo") is not None


@pytest.mark.parametrize("module", ["detectron2", "detectron2.config", "detectron2.utils.comm"])
def test_probing_still_works(module: str) -> None:
    found = importlib.import_module(module)
    assert not hasattr(found, "__wrapped__")
    assert getattr(found, "__no_such_dunder__", 3) == 3
    assert inspect.getmodule(found) is found
    assert inspect.unwrap(found) is found
    assert inspect.getsource(found)


@pytest.mark.parametrize("before", ["", "import detectron2; "])
def test_import_hooks_of_others_work(before: str) -> None:
    """Hooks on modules of Detectron2, set before or after its first import, run."""
    script = before + (
        "import wrapt; wrapt.register_post_import_hook(print, 'detectron2.data'); "
        "import detectron2.data"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "<module 'detectron2.data'" in run.stdout


@pytest.mark.skipif(not IS_LITE, reason="upstream is what is asked for")
@pytest.mark.parametrize("asked", ["==0.6", ">=0.6", "~=0.6", ">=0.1", "==0.6.*"])
def test_no_wish_for_upstream_is_met_by_the_stand_in(asked: str) -> None:
    """So that an installer that has to meet it replaces the stand-in."""
    version = detectron2.__version__
    assert version == "0.0.1+lite"
    assert not Requirement(f"detectron2{asked}").specifier.contains(version, prereleases=True)
    assert Requirement("detectron2").specifier.contains(version)


def test_the_stand_in_is_small() -> None:
    root = Path(__file__).parents[2] / "detectron2_lite"
    files = [root / "README.md", *root.glob("*.py"), *root.glob("detectron2/**/*.py")]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 2300


def test_other_packages_are_left_alone() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("detectron2_no_such_package")
    assert "pip install" not in str(caught.value)
