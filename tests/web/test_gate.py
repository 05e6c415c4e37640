"""What gets through to the page's server, and what does not."""

from __future__ import annotations

import asyncio
import json

import pytest

pytestmark = pytest.mark.gradio


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/image.png").write_text("own")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "own/link").symlink_to(tmp_path / "secret")
    (tmp_path / "ownership").write_text("secret")
    return tmp_path / "own"


@pytest.fixture
def ask(folder):
    """``ask(method, path, body, **headers)``: status, headers and body of the answer.

    What gets through is answered with 200 and the body that it came with.
    """
    from zss_d2.web.gate import Gate

    async def app(scope, receive, send):
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    gate = Gate(app, folder, most_bytes=1000, hosts=("127.0.0.1", "localhost", "::1"))

    def ask(method: str, path: str, body: object = b"", **headers: str):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"host": "127.0.0.1:7860", "content_length": str(len(content)), **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(gate(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    return ask


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/a.js", "/gradio_api/queue/data", "/static/img/x.svg"],
)
def test_what_the_page_needs_is_answered_and_may_load_nothing_from_elsewhere(ask, path):
    status, headers, _ = ask("GET", path)
    assert status == 200
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=http://example.org"),
        ("GET", "/gradio_api/dev/reload"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/label"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/upload"),
        ("PUT", "/"),
        ("OPTIONS", "/gradio_api/upload"),
    ],
)
def test_other_addresses_are_not(ask, method, path):
    assert ask(method, path)[0] == 404


def test_only_files_of_the_folder_are_read(ask, folder):
    assert ask("GET", f"/gradio_api/file={folder}/image.png")[0] == 200
    for path in (
        "/etc/passwd",
        "etc/passwd",
        folder,
        folder / "link",
        folder / "../secret",
        folder.parent / "ownership",
        "http://example.org/x.png",
        f"{folder}/image.png\0",
    ):
        assert ask("GET", f"/gradio_api/file={path}")[0] == 404, path


def test_images_are_those_of_the_folder_too(ask, folder):
    def join(**file: object) -> int:
        status, _, body = ask("POST", "/gradio_api/queue/join", {"data": [["x", file]]})
        assert status != 200 or json.loads(body) == {"data": [["x", file]]}
        return status

    assert join(path=f"{folder}/image.png", url=None) == 200
    assert join(path=None) == 200
    for path in ("/etc/passwd", f"{folder}/link", "http://example.org/x.png", ["x"], 3):
        assert join(path=path) == 403, path
    assert join(path=f"{folder}/image.png", url="data:image/png;base64,x") == 403
    assert ask("POST", "/gradio_api/queue/join", b"{no json")[0] == 403
    assert ask("POST", "/gradio_api/queue/join", b"[" * 100_000)[0] == 403


def test_bodies_are_small_and_say_how_long_they_are(ask):
    assert ask("POST", "/gradio_api/queue/join", b'"' + b"x" * 2**18 + b'"')[0] == 413
    assert ask("POST", "/gradio_api/upload", b"x" * 1000)[0] == 200
    assert ask("POST", "/gradio_api/upload", content_length=str(1000 + 2**14 + 1))[0] == 413
    for length in ("", "-1", "x"):
        assert ask("POST", "/gradio_api/upload", content_length=length)[0] == 411


def test_a_server_of_this_machine_alone_answers_to_its_own_names(ask):
    for host in ("localhost:7860", "127.0.0.1", "[::1]:7860"):
        assert ask("GET", "/", host=host)[0] == 200
    for host in ("evil.example", "evil.example:7860", "", "127.0.0.1.evil.example"):
        assert ask("GET", "/", host=host)[0] == 421


def test_pages_of_other_sites_send_nothing(ask):
    assert ask("POST", "/gradio_api/queue/join", {}, origin="http://127.0.0.1:7860")[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:80"):
        assert ask("POST", "/gradio_api/queue/join", {}, origin=origin)[0] == 403
