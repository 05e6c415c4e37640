"""What the page's server answers at all: a few addresses, small bodies, files of one folder.

Gradio's own server knows many more addresses, some of which fetch files from other hosts or take
paths on this machine. What the page does not need is turned away before it gets there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Bytes of what a page sends beside files.
MOST_JSON_BYTES = 2**18
# Bytes around a file in an upload.
_FORM_BYTES = 2**14
_UPLOAD = "/gradio_api/upload"
_FILE = "/gradio_api/file="
_READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)"
    r"|/(assets|static)/.+"
    r"|/gradio_api/(info|app_id|startup-events|upload_progress|queue/data|heartbeat/\w+|file=.+)"
)
_WRITE = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset)")
# Nothing is loaded from, sent to, or shown within a page of another host.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; form-action 'self'; base-uri 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """An ASGI application before that of the page.

    Args:
        app: of the page.
        folder: the only one whose files are read, for answers and as images.
        most_bytes: of an uploaded file.
        hosts: names that the server may be called by, so that no page of another site can lead a
            browser here under a name of its own; None: any.
    """

    def __init__(
        self, app: ASGIApp, folder: Path, most_bytes: int, hosts: Collection[str] | None = None
    ):
        self.app = app
        self.folder = os.path.realpath(folder)
        self.most_bytes = most_bytes
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST" and scope["path"] != _UPLOAD:
            body = await Request(scope, receive).body()
            receive = _replay(body, receive)
            if not self._has_own_files_only(body):
                refusal = PlainTextResponse("Files are uploaded first.", 403)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """The answer to what gets no further, by its address and its headers."""
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return PlainTextResponse("No server of that name.", 421)
        if (origin := headers.get("origin")) and urlsplit(origin).netloc != host:
            return PlainTextResponse("Not for pages of other sites.", 403)
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _WRITE}.get(method)
        if allowed is None or not allowed.fullmatch(path):
            return PlainTextResponse("Not found.", 404)
        if path.startswith(_FILE) and not self._is_own(path.removeprefix(_FILE)):
            return PlainTextResponse("Not found.", 404)
        if method == "POST":
            length = headers.get("content-length", "")
            most = self.most_bytes + _FORM_BYTES if path == _UPLOAD else MOST_JSON_BYTES
            if not length.isdecimal():
                return PlainTextResponse("The length is missing.", 411)
            if int(length) > most:
                return PlainTextResponse(f"More than {most} bytes.", 413)
        return None

    def _is_own(self, path: str) -> bool:
        try:
            real = os.path.realpath(path)
        except ValueError:  # no path at all
            return False
        return real.startswith(self.folder + os.sep) and os.path.isfile(real)

    def _has_own_files_only(self, body: bytes) -> bool:
        try:
            content = json.loads(body) if body else None
        except (ValueError, RecursionError):
            return False
        return all(
            isinstance(entry["path"], str)
            and self._is_own(entry["path"])
            and not str(entry.get("url") or "").startswith("data:")
            for entry in _mappings(content)
            if entry.get("path") is not None
        )


def _mappings(content: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON value."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then goes on."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
