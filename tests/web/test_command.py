"""What `zss web` says before there is a page."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from tests.conftest import ROOT
from zss_d2 import cli
from zss_d2.errors import ZssError
from zss_d2.web import command, server


@pytest.fixture
def with_gradio(monkeypatch):
    """As if the extra were installed; what is tested ends before it is used."""
    monkeypatch.setattr(command, "_EXTRA", ())
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.fixture
def taken() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def error_of(capsys, *arguments: object) -> str:
    assert cli.main(["web", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name)
    )
    error = error_of(capsys)
    assert error == "error: zss web needs gradio, which is not installed; pip install zss_d2[web]\n"


def test_a_taken_port_is_one_line(with_gradio, taken, capsys):
    error = error_of(capsys, "--port", taken)
    assert error == (
        f"error: --port {taken} is taken by another program; give another one, or end that\n"
    )


def test_a_host_that_is_not_here_is_one_line(with_gradio, capsys):
    error = error_of(capsys, "--host", "203.0.113.7")
    assert "--host 203.0.113.7 is no address of this machine" in error
    assert "--host a..b is no address of this machine" in error_of(capsys, "--host", "a..b")


def test_a_port_that_is_not_allowed_is_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ZssError, match="--port 80 is not for you to open; give one from 1024"):
        server.open_port("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port"),
        (["--max-mb", "0"], "--max-mb"),
        (["--share"], "--share"),
    ],
)
def test_options_that_are_wrong(arguments, message, capsys):
    assert message in error_of(capsys, *arguments)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_run"], "no_run"),
        (["--weights", "x.pth"], "--weights belongs to a --config-file"),
        (["--config-file", "configs/no.yaml"], "configs/no.yaml"),
        (["--config-file", ROOT / "configs/ldvc_mini.yaml"], "names no weights"),
        (
            ["--config-file", ROOT / "configs/maskclip_mini.yaml", "--device", "abacus"],
            "device is 'abacus'",
        ),
    ],
)
def test_models_that_are_wrong_end_it_before_there_is_a_page(
    with_gradio, arguments, message, capsys
):
    before = set(Path(command.tempfile.gettempdir()).glob("zss_web_*"))
    assert message in error_of(capsys, "--port", free_port(), *arguments)
    assert set(Path(command.tempfile.gettempdir()).glob("zss_web_*")) == before


def test_which_hosts_only_this_machine_reaches():
    assert all(map(server.is_local, ("127.0.0.1", "127.0.0.2", "localhost", "::1")))
    assert not any(map(server.is_local, ("0.0.0.0", "192.168.0.1", "::", "example.org")))
