"""What all scripts in datasets/ share, a new one too: mistakes and missing data are one line."""

from __future__ import annotations

import pytest

from tests.data.conftest import SCRIPTS, load_script

NAMES = sorted(path.stem for path in SCRIPTS.glob("prepare_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_and_missing_data_are_told_in_lines(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    script = load_script(name)
    for arguments in (["--nonsense"], ["--workers", "0"], ["--check", "--workers", "1"]):
        assert script.run(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        problems = [line for line in lines if not line.endswith("is good stays prepared")]
        assert problems
        assert all(line.startswith("error: ") for line in problems), lines
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", NAMES)
def test_help_says_where_data_is_looked_for(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        load_script(name).run(["--help"])
    assert ended.value.code == 0
    assert str(tmp_path) in "".join(capsys.readouterr().out.split())
