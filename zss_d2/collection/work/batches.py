"""Batches of a share of the images, whose sizes are looked up as they are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from zss_d2.collection.inputs import Image
from zss_d2.collection.raster.kinds import Header, Kind, inspect
from zss_d2.collection.work.pipeline import Member
from zss_d2.collection.work.plan import Size, batches
from zss_d2.predict.options import Options

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor


def planned(
    pieces: Sequence[Sequence[Image]],
    wanted: Collection[str],
    predictor: Predictor,
    options: Options,
    large: int,
    threads: int,
) -> Iterator[list[Member]]:
    """Batches in which there is an image that is wanted, all of whose members are computed.

    Args:
        pieces: images in the chunks that batches are formed in.
        wanted: names of images.
        large: pixels above which an image is read by windows.
    """

    def together(header: Header) -> Size | None:
        size = header.size
        if size is None or header.kind is Kind.LARGE or predictor.is_tiled(size, options):
            return None
        return predictor.network_size(size, options)

    with ThreadPoolExecutor(threads) as pool:
        for images in pieces:
            if not any(image.name in wanted for image in images):
                continue
            headers = list(pool.map(lambda image: inspect(image.path, large), images))
            areas = list(map(_area, headers))
            for group in batches(list(map(together, headers)), areas, options.batch):
                members = [
                    Member(images[i], images[i].name in wanted, areas[i], headers[i].kind)
                    for i in group
                ]
                if any(member.wanted for member in members):
                    yield members


def _area(header: Header) -> int:
    """Pixels that are read at once."""
    if header.size is None or header.kind is Kind.LARGE:
        return 0
    return header.size[0] * header.size[1]
