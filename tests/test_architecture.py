"""The one direction of imports, as docs and newcomers rely on it."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A package may import from those that stand before it.
ORDER = (
    *("errors", "utils", "drawing", "config", "data", "clip", "modeling", "evaluation", "engine"),
    *("train", "predict", "analysis", "api", "collection", "exchange", "web", "mini_clip", "cli"),
)
ROOMS = {
    "data": (
        "labels",
        "files",
        "spec",
        "pipeline",
        "prepare",
        "exports",
        "synthetic",
        "sets",
        "prepare_command",
    ),
    "modeling": (
        *("precision", "attention", "losses", "identity", "class_logits", "inference"),
        *("self_training", "segmentor", "clip_segmentor", "two_tower", "methods"),
    ),
}
# These see the config only as an argument.
WITHOUT_CONFIG = ("data", "clip", "modeling")
PACKAGE = ROOT / "zss_d2"


def imported_modules(path: Path) -> set[str]:
    """Modules of zss_d2 that a file imports, as dotted names below it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("zss_d2.") for name in names if name.startswith("zss_d2.")}


def files_of(module: Path) -> list[Path]:
    return sorted(module.rglob("*.py")) if module.is_dir() else [module.with_suffix(".py")]


def test_every_room_has_a_place_in_the_order():
    found = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - {"__init__", "__main__"} == set(ORDER)


@pytest.mark.parametrize("part", ORDER)
def test_imports_go_in_one_direction(part):
    allowed = set(ORDER[: ORDER.index(part) + 1])
    for path in files_of(PACKAGE / part):
        modules = imported_modules(path)
        forbidden = {name.split(".")[0] for name in modules} - allowed
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"
        if part in WITHOUT_CONFIG:
            assert not {n for n in modules if n.startswith("config.defaults")}, path


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_of_a_part_too(part):
    rooms = ROOMS[part]
    for index, room in enumerate(rooms):
        for path in files_of(PACKAGE / part / room):
            names = {n.split(".")[1] for n in imported_modules(path) if n.startswith(f"{part}.")}
            forbidden = names.intersection(rooms[index + 1 :])
            assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_files_and_folders_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 12, f"{folder.relative_to(ROOT)}: {sorted(files)}"


def test_methods_do_not_know_each_other():
    for method in (PACKAGE / "modeling" / "methods").iterdir():
        for path in method.rglob("*.py") if method.is_dir() else ():
            for node in ast.walk(ast.parse(path.read_text())):
                module = getattr(node, "module", None) or ""
                if module.startswith("zss_d2.modeling.methods."):
                    assert module.split(".")[3] == method.name, f"{path}: {module}"


def test_no_file_asks_which_detectron2_is_installed():
    """Only the environment report may name the version."""
    asking = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "detectron2.__version__" in path.read_text()
    ]
    assert asking == ["evaluation/results.py"]
