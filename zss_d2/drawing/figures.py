"""Figures as the content of files."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


def encode(figure: Figure, form: str = "png", dpi: int = 120) -> bytes:
    """The figure as the content of a file; ``form`` is one of Matplotlib's formats."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dpi)
    return buffer.getvalue()
