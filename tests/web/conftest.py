"""`zss web` in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.web.browser import Browser

MASKCLIP = ROOT / "configs/maskclip_mini.yaml"


class Served(NamedTuple):
    """A page that is served.

    Attributes:
        url: without a slash at its end.
        folder: of its temporary files.
        stop: sends a signal; returns exit status and error output.
    """

    url: str
    folder: Path
    stop: Callable[[signal.Signals], tuple[int, str]]


@contextmanager
def serve(folder: Path, *arguments: str, before: str = "") -> Iterator[Served]:
    """Run ``zss web`` until the end of the block.

    Args:
        folder: for its temporary files.
        before: Python code that it runs first.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    code = f"{before}\nimport sys; from zss_d2.cli import main; sys.exit(main())"
    options = ("--config-file", str(MASKCLIP), "--device", "cpu", "--port", str(port))
    with (folder / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "web", *options, *arguments],
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

        def stop(signum: signal.Signals) -> tuple[int, str]:
            process.send_signal(signum)
            status = process.wait(30)
            errors.seek(0)
            return status, errors.read()

        try:
            first = process.stdout.readline()
            assert first == f"http://127.0.0.1:{port} (Ctrl-C ends it)\n", errors.read()
            (own,) = folder.glob("zss_web_*")
            yield Served(f"http://127.0.0.1:{port}", own, stop)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with a training-free model; files of up to 0.5 MiB, images of up to 0.1 megapixels."""
    folder = tmp_path_factory.mktemp("web")
    with serve(folder, "--max-mb", "0.5", "--max-megapixels", "0.1") as page:
        yield page
    # Nobody but the server wrote into it.
    assert "Traceback" not in (folder / "errors.txt").read_text()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from tests.web.browser import Browser

    browser = Browser(shutil.which("chromedriver"), tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A browser without windows on the page."""
    yield chromium
    chromium.close_windows()
