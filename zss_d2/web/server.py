"""Serving the page on one address, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError

if TYPE_CHECKING:
    import gradio as gr

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# How long answers that are under way at the end are waited for.
_LAST_ANSWERS_S = 1


def open_port(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        ZssError: it is taken, not allowed, or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(found[0][4][:2], family=found[0][0])
    except (OSError, UnicodeError) as error:
        raise ZssError(_reason(error, host, port)) from None


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def use_folder(folder: Path) -> None:
    """Make Gradio, before it is imported, keep its files in a folder and call nobody."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_EXAMPLES_CACHE=str(folder / "examples"),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="False",
        HF_HUB_OFFLINE="1",
    )


def serve(
    page: gr.Blocks, listening: socket.socket, host: str, folder: Path, most_bytes: int
) -> None:
    """Answer requests; Ctrl-C and SIGTERM end it, then have the effect that they had outside.

    Args:
        page: see `zss_d2.web.page`.
        listening: of `open_port`.
        host: that was opened.
        folder: of `use_folder`.
        most_bytes: of an uploaded file.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from zss_d2.web.gate import Gate
    from zss_d2.web.page import CSS, THEME

    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        server_name=host,
        footer_links=[],
        allowed_paths=[],
        max_file_size=most_bytes,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=THEME,
        css=CSS,
    )
    gate = Gate(app, folder, most_bytes, _LOCAL_NAMES if is_local(host) else None)
    config = uvicorn.Config(
        gate, log_level="error", access_log=False, timeout_graceful_shutdown=_LAST_ANSWERS_S
    )
    uvicorn.Server(config).run(sockets=[listening])


def _reason(error: Exception, host: str, port: int) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return f"--port {port} is taken by another program; give another one, or end that"
        case errno.EACCES | errno.EPERM:
            return f"--port {port} is not for you to open; give one from 1024 to 65535"
    return (
        f"--host {host} is no address of this machine ({getattr(error, 'strerror', error)}); give "
        "127.0.0.1 for this machine alone, or 0.0.0.0 for all that reach it"
    )
