"""Batches of a share of the images, whose sizes are looked up as they are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from zss_d2.collection.inputs import Image
from zss_d2.collection.work.pipeline import Member
from zss_d2.collection.work.plan import Size, batches
from zss_d2.data.files.images import image_size
from zss_d2.predict.options import Options

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor


def planned(
    pieces: Sequence[Sequence[Image]],
    wanted: Collection[str],
    predictor: Predictor,
    options: Options,
    threads: int,
) -> Iterator[list[Member]]:
    """Batches in which there is an image that is wanted, all of whose members are computed.

    Args:
        pieces: images in the chunks that batches are formed in.
        wanted: names of images.
    """

    def kind(size: Size) -> Size | None:
        return None if predictor.is_tiled(size, options) else predictor.network_size(size, options)

    with ThreadPoolExecutor(threads) as pool:
        for images in pieces:
            if not any(image.name in wanted for image in images):
                continue
            sizes = list(pool.map(_size, images))
            for group in batches(sizes, options.batch, kind):
                members = [_member(images[i], sizes[i], wanted) for i in group]
                if any(member.wanted for member in members):
                    yield members


def _member(image: Image, size: Size | None, wanted: Collection[str]) -> Member:
    return Member(image, image.name in wanted, size[0] * size[1] if size else 0)


def _size(image: Image) -> Size | None:
    found = image_size(image.path)
    return found and found[::-1]
