"""What detectron2_lite leaves out says how to install upstream, and is there in upstream."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

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
