"""Bad input to every command, also to one that is new: one line, exit status 2.

A tool is a sub-command of ``zss`` with a ``make_parser``, which names folders of runs RUN and
configs CONFIG.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import TINY_CONFIG
from zss_d2 import cli
from zss_d2.analysis.sweep import runner
from zss_d2.cli import COMMANDS
from zss_d2.config.defaults import default_config
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer


def find_tools() -> dict[str, ModuleType]:
    modules = {name: importlib.import_module(f"zss_d2.{m}") for name, (m, _) in COMMANDS.items()}
    return {name: module for name, module in modules.items() if hasattr(module, "make_parser")}


TOOLS = find_tools()
# Options that make a call quick, or possible at all on a benchmark without a split for choosing.
QUICK = {
    "--images": "1",
    "--measure": "1",
    "--resamples": "5",
    "--dataset": "zss_voc_val",
    "--biases": "0",
    "--size": "64",
    "--rounds": "1",
}


def actions(tool: ModuleType) -> list[argparse.Action]:
    return tool.make_parser()._actions


def metavars(tool: ModuleType) -> set[object]:
    return {action.metavar for action in actions(tool)}


def reads_results(tool: ModuleType) -> bool:
    """What is loaded instead are models, under a config that options can change."""
    options = {option for action in actions(tool) for option in action.option_strings}
    return "RUN" in metavars(tool) and "--opts" not in options


def command(tool: ModuleType, run: Path, output: Path | None = None) -> list[str]:
    """A complete command line of a tool for a run."""
    values = {
        "RUN": str(run),
        "CONFIG": str(run / "config.yaml"),
        "SOURCE": str(run / "annotations.json"),
        "FOLDER": str(run),
    }
    arguments = []
    for action in actions(tool):
        option = action.option_strings[-1:]
        value = values.get(action.metavar) if isinstance(action.metavar, str) else None
        if option == ["--output"]:
            place = run.parent / "output"
            value = str(output or (place if action.metavar == "DIR" else place / "file.png"))
        elif option and option[0] in QUICK:
            value = QUICK[option[0]]
        if value is not None:
            arguments += [*option, value]
    return arguments


def call(tool: ModuleType, arguments: list[str], capsys) -> tuple[int, str]:
    """Exit status, and the only line that was written if that is not 0."""
    status = tool.main(arguments)
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("note: ")]
    assert status in (0, 2)
    if status == 0:
        return 0, ""
    errors = [line for line in lines if line.startswith("error: ")]
    assert lines[-1:] == errors, lines
    return 2, errors[0]


@pytest.fixture(autouse=True)
def no_training(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "TRAIN_NET", tmp_path / "no train_net.py")


@pytest.fixture(scope="module")
def good_run(voc_root, tmp_path_factory) -> Iterator[Path]:
    """A run with everything that one can leave."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(voc_root))
        cfg = default_config()
        cfg.merge_from_file(str(TINY_CONFIG))
        cfg.merge_from_list(["OUTPUT_DIR", str(folder), "TEST.PREDICTIONS", "png"])
        model = ZeroShotTrainer.build_model(cfg).eval()
        ZeroShotTrainer.test(cfg, model)
        ZeroShotCheckpointer(model, str(folder)).save("model_final", iteration=49)
        (folder / "config.yaml").write_text(cfg.dump())
        (folder / "metrics.json").write_text('{"iteration": 19, "total_loss": 9.0}\n')
        yield folder


@pytest.fixture
def run(good_run, toy_voc, tmp_path) -> Path:
    return shutil.copytree(good_run, tmp_path / "run")


def change(name: str, edit: Callable[[dict], object]) -> Callable[[Path], object]:
    """Edit results.json of a run."""

    def work(run: Path) -> None:
        content = json.loads((run / name).read_text())
        edit(content)
        (run / name).write_text(json.dumps(content))

    return work


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda run: (run / name).write_bytes(data)


def half(name: str) -> Callable[[Path], object]:
    def work(run: Path) -> None:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    return work


def as_folder(name: str) -> Callable[[Path], object]:
    def work(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return work


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def file_instead(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("no folder")


BINARY = bytes(range(128, 256))
COUNTS = "confusion_zss_voc_val.npz"
FOLDERS = {
    "nothing": shutil.rmtree,
    "a file": file_instead,
    "an empty folder": empty,
}
OF_RESULTS = {
    "results: list": write("results.json", "[]"),
    "results: text": write("results.json", "mIoU 3.1"),
    "results: number": write("results.json", "3"),
    "results: empty": write("results.json", ""),
    "results: empty mapping": write("results.json", "{}"),
    "results: deep": write("results.json", "[" * 100_000),
    "results: binary": write("results.json", BINARY),
    "results: half": half("results.json"),
    "results: folder": as_folder("results.json"),
    "results: no provenance": change("results.json", lambda x: x.pop("provenance")),
    "results: only provenance": change("results.json", lambda x: x.pop("zss_voc_val")),
    "results: provenance is text": change("results.json", lambda x: x.update(provenance="x")),
    "results: no protocol": change("results.json", lambda x: x["provenance"].pop("protocol")),
    "results: no scales": change(
        "results.json", lambda x: x["provenance"]["protocol"].pop("scales")
    ),
    "results: scales of text": change(
        "results.json", lambda x: x["provenance"]["protocol"].update(scales=["x"])
    ),
    "results: slide without crop": change(
        "results.json", lambda x: x["provenance"]["protocol"].update(slide={})
    ),
    "results: method is a list": change(
        "results.json", lambda x: x["provenance"].update(method=[])
    ),
    "results: metric is text": change("results.json", lambda x: x["zss_voc_val"].update(hIoU="x")),
    "results: metrics are a list": change("results.json", lambda x: x.update(zss_voc_val=[])),
    "metrics: binary": write("metrics.json", BINARY),
    "metrics: half a line": write("metrics.json", '{"iteration": 19, "total_lo'),
    "metrics: list": write("metrics.json", "[]"),
    "metrics: no iteration": write("metrics.json", '{"total_loss": 1.0}'),
    "metrics: text for a number": write("metrics.json", '{"iteration": 1, "total_loss": "x"}'),
    "counts: text": write(COUNTS, "no archive"),
    "counts: half": half(COUNTS),
    "counts: gone": lambda run: (run / COUNTS).unlink(),
}
OF_MODELS = {
    "config: empty": write("config.yaml", ""),
    "config: list": write("config.yaml", "[1, 2]"),
    "config: text": write("config.yaml", "LDVC"),
    "config: no yaml": write("config.yaml", "{"),
    "config: deep": write("config.yaml", "[" * 1_000),
    "config: binary": write("config.yaml", BINARY),
    "config: half": half("config.yaml"),
    "config: folder": as_folder("config.yaml"),
    "config: unknown key": write("config.yaml", "NOTHING: 1"),
    "config: own base": write("config.yaml", "_BASE_: config.yaml"),
    "config: code": write("config.yaml", "MODEL: !!python/object/apply:os.system ['false']"),
    "checkpoint: text": write("model_final.pth", "no weights"),
    "checkpoint: half": half("model_final.pth"),
    "checkpoint: gone": lambda run: (run / "model_final.pth").unlink(),
    "checkpoint: last_checkpoint is binary": write("last_checkpoint", BINARY),
    "checkpoint: last_checkpoint is empty": write("last_checkpoint", ""),
}


def everything(kinds: dict[str, Callable[[Path], object]]) -> Callable[[Path], object]:
    return lambda run: [work(run) for name, work in kinds.items() if name.endswith("binary")]


def cases() -> Iterator[pytest.param]:
    for name, tool in TOOLS.items():
        breakages = dict(FOLDERS)
        if not {"RUN", "CONFIG"} & metavars(tool):
            continue
        if reads_results(tool):
            breakages |= OF_RESULTS
        else:
            # That these files do not matter to it is seen in one call.
            breakages["all results"] = everything(OF_RESULTS)
            breakages |= OF_MODELS
        for what, work in breakages.items():
            yield pytest.param(tool, what, work, id=f"{name}-{what}")


@pytest.mark.parametrize(("tool", "what", "work"), list(cases()))
def test_broken_runs_are_one_line(tool, what, work, run, capsys):
    work(run)
    status, line = call(tool, command(tool, run), capsys)
    harmless = what == "all results" or (
        what.startswith("checkpoint") and "RUN" not in metavars(tool)
    )
    if tool.__name__.endswith(".sweep"):
        harmless = False  # there is no train_net.py
    if tool.__name__.endswith(".plm") and what == "all results":
        return
    if tool.__name__.endswith(".distillation"):
        harmless = False  # the run is of another method
    assert status == (0 if harmless else 2), line
    if not harmless and not tool.__name__.endswith(".sweep"):
        assert str(run) in line


def test_there_are_tools_of_every_kind():
    assert {"RUN", "CONFIG"} <= set().union(*map(metavars, TOOLS.values()))
    assert len(TOOLS) >= 8


@pytest.mark.parametrize("name", TOOLS)
def test_mistakes_of_the_command_line_are_one_line(name, run, capsys):
    tool = TOOLS[name]
    good = command(tool, run)
    for arguments in ([*good, "--nonsense"], []):
        if not arguments and not any(action.required for action in actions(tool)):
            continue
        assert call(tool, arguments, capsys)[0] == 2
    for action in actions(tool):
        if action.type in (None, Path):
            continue
        for bad in ("-4", "x", "", "nan", "inf", "1" + 400 * "0"):
            status, line = call(tool, [*good, action.option_strings[-1], bad], capsys)
            assert status == 2, (action.option_strings, bad)
            assert action.option_strings[-1] in line


@pytest.mark.parametrize("name", [name for name, tool in TOOLS.items() if "RUN" in metavars(tool)])
def test_help_is_the_description_and_one_line_of_use(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: zss {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, tool in TOOLS.items()
        if any(
            "--output" in x.option_strings and x.metavar in ("FILE", "DIR") for x in actions(tool)
        )
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_any_work(name, run, tmp_path, capsys):
    tool = TOOLS[name]
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    below = tmp_path / "file/x"
    same = tmp_path / ("file" if "DIR" in metavars(tool) else "folder")
    shutil.rmtree(run)  # what it would say first if it read that first
    for output in (below, same):
        status, line = call(tool, command(tool, run, output), capsys)
        assert status == 2
        assert line.startswith(f"error: --output {output}")


def loaders() -> list[str]:
    """Those of any method; `zss distillation` has tests of its own."""
    return [
        name
        for name, tool in TOOLS.items()
        if "RUN" in metavars(tool) and not reads_results(tool) and name != "distillation"
    ]


@pytest.mark.parametrize("name", loaders())
def test_all_that_load_a_run_take_opts_and_move_to_a_device_that_is_there(name, run, capsys):
    tool, path = TOOLS[name], run / "config.yaml"
    text = path.read_text().replace("DEVICE: cpu", "DEVICE: cuda:99")
    text = text.replace("AMP:\n    ENABLED: false", "AMP:\n    ENABLED: true")
    assert "ENABLED: true" in text
    path.write_text(text)
    assert tool.main(command(tool, run)) == 0
    (note,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note: ")]
    assert note.startswith(
        f"note: {path} names MODEL.DEVICE cuda:99, which this machine lacks; computing on "
    )
    good = command(tool, run)
    for opts, message in (
        (["NOTHING", "1"], "NOTHING"),
        (["MODEL.DEVICE"], "command line"),
        (["MODEL.DEVICE", "cuda:98"], "MODEL.DEVICE cuda:98: this machine has no such device"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST of the run is empty"),
    ):
        if "--dataset" in good and opts[0] == "DATASETS.TEST":
            continue
        status, line = call(tool, [*good, "--opts", *opts], capsys)
        assert status == 2
        assert message in line
