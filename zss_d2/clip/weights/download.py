"""Files of weights from the network: once per machine, announced, and given up where there is none.

What is here already is used without a look at the network. Of several processes one downloads and
the others, which may come later or not at all, find the file: a lock in the cache stands for that.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, urlopen

from filelock import FileLock, Timeout
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from iopath.common.file_io import get_cache_dir

from zss_d2.clip.weights.file import lookalike
from zss_d2.errors import ZssError
from zss_d2.utils.writing import write_atomic

logger = logging.getLogger(__name__)

# For another process to download a file of some GB.
_PATIENCE_S = 60 * 60
# For a server to say anything.
_TIMEOUT_S = 15
_BLOCK = 1 << 20
SCHEMES = ("http", "https")


# What the same weights are called as safetensors, where it is not the suffix alone that differs.
_SAFETENSORS = {
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    "pytorch_model.bin": "model.safetensors",
}


class Wish(NamedTuple):
    """What a file is wanted for."""

    subject: str  # what asks for it, such as a key and its value
    remedy: str  # what to do if it is unavailable

    def error(self, problem: str) -> ZssError:
        return ZssError(f"{self.subject}: {problem}; {self.remedy}")


def names_on_hub(file: str) -> tuple[str, ...]:
    """What open_clip and timm look for where they list ``file``: safetensors first."""
    stem, suffix = os.path.splitext(file)
    if suffix not in (".bin", ".pth"):
        return (file,)
    return _SAFETENSORS.get(file, f"{stem}.safetensors"), file


def hub_file(repo: str, names: Sequence[str], wish: Wish, revision: str | None = None) -> Path:
    """The first of several files that a repository of the Hugging Face hub has.

    Settings of the hub's own library hold, such as ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and
    ``HF_HUB_ETAG_TIMEOUT``.

    Raises:
        ZssError: it is not on this machine and cannot be downloaded, or another process downloads
            it for an hour.
    """

    def cached() -> Path | None:
        found = (try_to_load_from_cache(repo, name, revision=revision) for name in names)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    lock = Path(constants.HF_HUB_CACHE) / ".locks" / f"{repo.replace('/', '--')}.download.lock"
    return _cached_or(cached, lock, wish, lambda: _from_hub(repo, names, wish, revision))


def _from_hub(repo: str, names: Sequence[str], wish: Wish, revision: str | None) -> Path:
    host = urlsplit(hf_hub_url(repo, names[0])).hostname or "the hub"
    if constants.HF_HUB_OFFLINE:
        raise wish.error("not on this machine, and HF_HUB_OFFLINE forbids to download it")
    logger.warning("%s: not on this machine, asking %s for it", wish.subject, host)
    for name in names:
        url = hf_hub_url(repo, name, revision=revision)
        size = None
        try:
            # Once and without the minute of retries that a download begins with.
            size = get_hf_file_metadata(url).size
        except EntryNotFoundError:
            continue
        except HfHubHTTPError:
            pass  # somebody is there: the library knows when to ask again
        except Exception as error:  # of whatever library it makes its requests with
            raise wish.error(f"not on this machine, and {_unreachable(host, error)}") from None
        _announce(wish, name, host, size)
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except Exception as error:
            raise wish.error(f"{name} is unavailable from {host} ({_brief(error)})") from None
    raise wish.error(f"{host} has none of {', '.join(names)} in {repo}")


def url_file(url: str, wish: Wish) -> Path:
    """The file behind an address, from the folder where Detectron2 keeps downloads.

    Raises:
        ZssError: the scheme is not one of `SCHEMES`; the file cannot be downloaded; what comes is
            no file of weights but a page or the like.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as half an IPv6 address
        raise wish.error(f"it is no address ({error})") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise wish.error(f"files are fetched by {' and '.join(SCHEMES)} only")
    path = Path(get_cache_dir()) / parts.path.lstrip("/")
    if ".." in path.parts or not parts.path.strip("/"):
        raise wish.error("it names no file")

    def cached() -> Path | None:
        return path if path.is_file() else None

    lock = path.with_name(f".{path.name[:100]}.download.lock")
    return _cached_or(cached, lock, wish, lambda: _from_url(url, path, wish))


def _from_url(url: str, path: Path, wish: Wish) -> Path:
    host = urlsplit(url).hostname
    logger.warning("%s: not on this machine, asking %s for it", wish.subject, host)
    try:
        with urlopen(Request(url), timeout=_TIMEOUT_S) as source:
            length = source.headers.get("Content-Length")
            size = int(length) if length else None
            _announce(wish, path.name, host, size)
            write_atomic(path, lambda temporary: _copy(source, temporary, size, wish))
    except HTTPError as error:
        raise wish.error(f"{host} answers {error.code} ({error.reason})") from None
    except (OSError, HTTPException, ValueError) as error:
        raise wish.error(_unreachable(host, error)) from None
    return path


def _copy(source: BinaryIO, target: Path, size: int | None, wish: Wish) -> None:
    with target.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
    if size is not None and target.stat().st_size != size:
        raise wish.error(f"the connection ended after {target.stat().st_size} of {size} bytes")
    if what := lookalike(target):
        raise wish.error(f"what comes is {what}")


def _cached_or(
    cached: Callable[[], Path | None], lock: Path, wish: Wish, fetch: Callable[[], Path]
) -> Path:
    """A file that is there, or once nobody else fetches it the one that ``fetch`` gives."""
    if found := cached():
        return found
    with _alone(lock, wish):
        return cached() or fetch()


@contextmanager
def _alone(path: Path, wish: Wish) -> Iterator[None]:
    """Keep other processes of this machine, or of a shared cache, out meanwhile.

    A lock of a process that was killed is free.
    """
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            logger.warning("%s: another process downloads it, waiting", wish.subject)
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise wish.error(
            f"another process has been downloading it for {_PATIENCE_S // 60} minutes ({path})"
        ) from None
    except (OSError, NotImplementedError) as error:
        # A cache that cannot be written; the download then says what the matter is.
        logger.debug("no lock %s: %s", path, error)
    try:
        yield
    finally:
        lock.release()


def _announce(wish: Wish, name: str, host: str | None, size: int | None) -> None:
    shown = f"{size / 2**20:,.0f} MiB" if size else "size unknown"
    logger.warning("%s: downloading %s (%s) from %s", wish.subject, name, shown, host)


def _unreachable(host: str | None, error: Exception) -> str:
    proxy = " through the proxy that is set" if getproxies() else ""
    return f"{host} cannot be reached{proxy} ({_brief(error)})"


def _brief(error: Exception) -> str:
    line = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
    return line if len(line) <= 80 else f"{line[:77]}..."
