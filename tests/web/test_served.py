"""What others than browsers get from the page's server."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.web.conftest import Served, serve

pytestmark = [pytest.mark.gradio, pytest.mark.slow]


@pytest.fixture
def client(served):
    import httpx

    with httpx.Client(base_url=served.url) as client:
        yield client


def upload(client, content: bytes, name: str = "x.png"):
    return client.post("/gradio_api/upload", files={"files": (name, content)})


def test_what_is_uploaded_lies_in_the_folder_of_the_page(client, served, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (path,) = upload(client, (tmp_path / "x.png").read_bytes(), "../../x.png").json()
    assert Path(path).resolve().is_relative_to(served.folder)
    answer = client.get(f"/gradio_api/file={path}")
    assert answer.status_code == 200
    assert answer.content == (tmp_path / "x.png").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file={folder}/../errors.txt",
        "/gradio_api/file={folder}/%2e%2e/errors.txt",
        "/gradio_api/file={folder}%2F..%2Ferrors.txt",
        "/gradio_api/file={folder}",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/proxy=http://127.0.0.1:1/x",
        "/static/..%2f..%2f..%2f..%2fetc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/__init__.py",
        "/file=/etc/passwd",
    ],
)
def test_no_other_file_is_read(client, served, path):
    answer = client.get(path.format(folder=served.folder))
    assert answer.status_code in (400, 403, 404)
    assert "root:" not in answer.text


def test_no_other_file_is_labelled(client):
    dependencies = client.get("/config").json()["dependencies"]
    for index in range(len(dependencies)):
        for file in ("/etc/passwd", "http://127.0.0.1:1/x.png"):
            body = {
                "data": [{"path": file, "meta": {"_type": "gradio.FileData"}}] * 8,
                "fn_index": index,
                "session_hash": "x",
            }
            assert client.post("/gradio_api/queue/join", json=body).status_code == 403


def test_uploads_are_limited_by_the_server_too(client):
    assert upload(client, bytes(2**19)).status_code == 200
    assert upload(client, bytes(2**19 + 1)).status_code == 413
    assert upload(client, bytes(2**20)).status_code == 413


@pytest.mark.parametrize(
    ("signum", "status", "errors"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path, signum, status, errors):
    with serve(tmp_path) as page:
        assert isinstance(page, Served)
        assert [*page.folder.iterdir()]
        assert page.stop(signum) == (status, errors)
        assert not page.folder.exists()
