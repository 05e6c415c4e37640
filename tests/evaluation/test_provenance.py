"""Which code made a result: only the package's own checkout or installation says so."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from zss_d2.evaluation.provenance import code_identity

UNKNOWN = {"version": None, "commit": None, "uncommitted_changes": None}


def git(folder, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def package(parent):
    folder = parent / "some_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    return folder


def checkout(tmp_path):
    folder = package(tmp_path / "project")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def installed(tmp_path, monkeypatch, origin: object, home: str = "site"):
    """A package in ``home`` and, in "site", what pip would write beside it."""
    folder, site = package(tmp_path / home), tmp_path / "site"
    info = site / "some_package-9.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some_package\nVersion: 9.1\n")
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return folder


def test_a_checkout_has_its_commit(tmp_path):
    folder = checkout(tmp_path)
    commit = git(folder, "rev-parse", "HEAD")
    expected = {"version": None, "commit": commit, "uncommitted_changes": False}
    assert code_identity(folder) == expected
    (folder / "__init__.py").write_text("changed = True")
    assert code_identity(folder) == expected | {"uncommitted_changes": True}


def test_another_repository_says_nothing(tmp_path):
    around = checkout(tmp_path).parent
    environment = package(around / "venv/site-packages")
    assert code_identity(environment) == UNKNOWN
    git(around, "add", ".")
    git(around, "commit", "-q", "-m", "with the environment")
    assert code_identity(environment) == UNKNOWN
    copied = around / "copy"
    copied.mkdir()
    (copied / "__init__.py").write_text("")
    assert code_identity(copied) == UNKNOWN  # at the top, but none of its files


def test_variables_of_git_do_not_lead_elsewhere(tmp_path, monkeypatch):
    folder = checkout(tmp_path)
    commit = git(folder, "rev-parse", "HEAD")
    other = checkout(tmp_path / "other").parent
    (other / "more").write_text("")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(folder.parent))
    assert code_identity(folder)["commit"] == commit


@pytest.mark.parametrize("script", [None, "exit 128", "echo nonsense"])
def test_without_a_willing_git_all_is_unknown(tmp_path, monkeypatch, script):
    """There is none, or it refuses the folder ("dubious ownership")."""
    folder = checkout(tmp_path)
    (tmp_path / "bin").mkdir()
    if script:
        (tmp_path / "bin/git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert code_identity(folder) == UNKNOWN


def test_an_installed_package_has_its_version_and_the_commit_that_pip_noted(tmp_path, monkeypatch):
    origin = {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    folder = installed(tmp_path, monkeypatch, origin)
    assert code_identity(folder) == UNKNOWN | {"version": "9.1", "commit": "abc"}
    assert code_identity(package(tmp_path / "elsewhere")) == UNKNOWN


def test_an_editable_installation_belongs_to_its_project(tmp_path, monkeypatch):
    url = (tmp_path / "my project").as_uri()
    origin = {"url": url, "dir_info": {"editable": True}}
    folder = installed(tmp_path, monkeypatch, origin, home="my project")
    assert code_identity(folder) == UNKNOWN | {"version": "9.1"}


def test_the_project_itself_has_a_commit_if_it_is_a_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
    if lines[0] == str(ROOT):
        assert code_identity(ROOT / "zss_d2")["commit"] == lines[1]
    else:
        assert code_identity(ROOT / "zss_d2")["uncommitted_changes"] is None
