"""What detectron2_lite leaves out says how to install upstream, and is there in upstream."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil

import detectron2
import pytest

IS_LITE = "lite" in detectron2.__version__
HINT = "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
MODULES = ["detectron2.structures.boxes", "detectron2.layers.nms", "detectron2.utils.visualizer"]
NAMES = [
    ("detectron2.structures", "Boxes"),
    ("detectron2.layers", "get_norm"),
    ("detectron2.config", "LazyConfig"),
    ("detectron2.utils.events", "_CURRENT_STORAGE_STACK"),
    ("detectron2.modeling.backbone", "FPN"),
]
# Arguments of upstream's that the stand-in does not take.
ARGUMENTS = [
    ("detectron2.data", "build_detection_test_loader", "sampler"),
    ("detectron2.data", "build_detection_train_loader", "collate_fn"),
    ("detectron2.data", "get_detection_dataset_dicts", "filter_empty"),
    ("detectron2.data", "DatasetFromList", "serialize"),
    ("detectron2.engine", "SimpleTrainer", "gather_metric_period"),
    ("detectron2.engine.hooks", "IterationTimer", "warmup_iter"),
    ("detectron2.evaluation", "SemSegEvaluator", "num_classes"),
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
    assert tried > 70


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


def test_other_packages_are_left_alone() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("detectron2_no_such_package")
    assert "pip install" not in str(caught.value)
