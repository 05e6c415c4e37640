"""Why the values of an image need not be the class ids that were drawn."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


def mask_warning(image: Image.Image) -> str:
    """Say what is wrong with a mask that is not loaded yet, and what to do; nothing if it is fine.

    Args:
        image: opened from a file, which has not been decoded.
    """
    lossy = _lossy_kind(image)
    if lossy:
        return f"mask is a {lossy}, whose compression changes ids; export it anew as a PNG"
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        return f"mask is a file of {pages} pictures; give a file with the mask alone"
    packed = raw_mode(image) if image.mode == "L" else ""
    if packed.startswith("L;") and packed.endswith("I"):
        return (
            "mask is stored with white as zero, which some readers turn round, so that ids are not "
            "certain; use a copy with black as zero"
        )
    if image.mode == "1" or packed in ("L;2", "L;4"):
        bits = packed.removeprefix("L;") or "1"
        return (
            f"mask is stored as {bits}-bit grey, which readers stretch to 0..255, so that ids and "
            "stretched ids look alike; use an 8-bit copy"
        )
    return ""


def raw_mode(image: Image.Image) -> str:
    """Return how the pixels of an image lie in its file, such as ``RGB;16B``, where Pillow says."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _lossy_kind(image: Image.Image) -> str:
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and image.info.get("compression") in _LOSSY_TIFF:
        return f"TIFF with {image.info['compression']} inside"
    if image.format == "WEBP" and not _webp_is_lossless(image):
        return "lossy WebP"
    return "" if image.format not in ("AVIF", "JPEG2000") else image.format


def _webp_is_lossless(image: Image.Image) -> bool:
    with open(image.filename, "rb") as file:
        file.seek(12)
        for kind in iter(lambda: _next_chunk(file), b""):
            if kind in (b"VP8 ", b"VP8L", b"ANMF"):
                return kind != b"VP8 "
    return False


def _next_chunk(file: BinaryIO) -> bytes:
    """Read the head of a RIFF chunk and pass over the rest; returns its kind, b"" at the end."""
    head = file.read(8)
    if len(head) < 8:
        return b""
    kind, size = struct.unpack("<4sI", head)
    file.seek(size + size % 2, 1)
    return kind
