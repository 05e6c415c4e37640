"""The one direction of imports, as docs and newcomers rely on it."""

import ast

import pytest

from tests.conftest import ROOT

# A package may import from those that stand before it.
ORDER = (
    *(
        "errors",
        "command_line",
        "random_streams",
        "signals",
        "config_values",
        "yaml_file",
        "config_checks",
        "config_rules",
        "config_merge",
    ),
    *("config", "data", "clip", "modeling", "evaluation", "engine", "tools"),
)
PACKAGE = ROOT / "zss_d2"


def imported_parts(path) -> set[str]:
    """First names below zss_d2 that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("zss_d2."):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("zss_d2.")}
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("part", ORDER)
def test_imports_go_in_one_direction(part):
    module = PACKAGE / part
    files = module.rglob("*.py") if module.is_dir() else [module.with_suffix(".py")]
    allowed = set(ORDER[: ORDER.index(part) + 1])
    if part in ("data", "modeling"):
        allowed -= {"config"}  # they see the config only as an argument
    for path in files:
        forbidden = imported_parts(path) - allowed
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


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
