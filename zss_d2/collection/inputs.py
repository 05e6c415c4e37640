"""Which images a command line names, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zss_d2.analysis.names import short_names
from zss_d2.data.files.predictions import holds_results
from zss_d2.errors import ZssError
from zss_d2.utils.text import one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


class Image(NamedTuple):
    """An image to label.

    ``path`` is absolute, ``file`` its place below the inputs, with ``/`` and its suffix, and
    ``name`` what its results are called, with ``/`` and, as a rule, without suffix.
    """

    path: str
    file: str
    name: str


class Inputs(NamedTuple):
    """All images, sorted by file, and what is to be said about how they were found."""

    images: list[Image]
    notes: list[str]


def find_images(arguments: Sequence[str], output: Path) -> Inputs:
    """The images that arguments of a command line name, each of them once.

    Folders are read with all that is in them, but for hidden files. Nothing in the output, or in
    another folder that ``zss predict`` has written to, is an image to label. Results mirror the
    folder; of several folders, each lies in one that is named by what tells them apart. Single
    files are taken as those of the folder that holds them all.

    Args:
        arguments: folders, files, patterns such as ``a/**/*.png``; ``@FILE``: paths of a text file,
            one per line.
        output: where results go.

    Raises:
        ZssError: a path that is not there, or of no image; a folder that cannot be listed; there is
            no image at all.
    """
    folders: dict[str, list[str]] = {}
    files: list[str] = []
    results = _Results(output)
    for argument in arguments:
        for path in map(os.path.abspath, _expanded(argument)):
            is_folder = os.path.isdir(path)
            if results.hold(path if is_folder else os.path.dirname(path)):
                results.met.append(path)
            elif is_folder:
                folders.setdefault(path, [])
            else:
                files.append(path)
    for folder, found in folders.items():
        found += _walk(folder, results, ())
    if files:
        folders.setdefault(os.path.commonpath(map(os.path.dirname, files)), []).extend(files)
    roots, doubled = _each_once(folders)
    if not roots:
        but = ", but for results of zss predict" if results.met else ""
        raise ZssError(
            f"{one_line(', '.join(arguments))}: there is no image{but}; give files or folders of "
            f"files that end in {', '.join(SUFFIXES)}"
        )
    images, notes = _named(roots)
    if results.met:
        more = f" and {len(results.met) - 1} more are" if len(results.met) > 1 else " is"
        notes.append(f"{one_line(results.met[0])}{more} left out, as results of zss predict")
    if doubled:
        more = f" and {len(doubled) - 1} more are" if len(doubled) > 1 else " is"
        notes.append(f"{one_line(doubled[0])}{more} given more than once; each is labelled once")
    return Inputs(images, notes)


class _Results:
    """Folders that ``zss predict`` has written to, or will: ``output``.

    Attributes:
        met: what was left out for lying in them.
    """

    def __init__(self, output: Path):
        self.met: list[str] = []
        self._output = os.path.realpath(output)
        self._known: dict[str, bool] = {}

    def are(self, folder: str) -> bool:
        """Whether a folder is the output itself."""
        return os.path.realpath(folder) == self._output

    def hold(self, folder: str) -> bool:
        """Whether a folder is, or lies in, one of them."""
        if folder not in self._known:
            self._known[folder] = self._look(os.path.realpath(folder))
        return self._known[folder]

    def _look(self, folder: str) -> bool:
        above = os.path.dirname(folder)
        return (
            folder == self._output or holds_results(folder) or above != folder and self.hold(above)
        )


def _expanded(argument: str) -> list[str]:
    """What an argument stands for: files that have an image's suffix, and folders."""
    if os.path.lexists(argument):
        return [_checked(argument)]
    if argument.startswith("@"):
        return _listed(Path(argument[1:]))
    if "://" in argument:
        raise ZssError(f"{argument}: addresses are not fetched; give a file or a folder")
    if not glob.has_magic(argument):
        raise ZssError(f"{one_line(argument) or repr('')}: no such file or folder; check the path")
    found = sorted(glob.glob(argument, recursive=True))
    found = [path for path in found if os.path.isdir(path) or is_image(path)]
    if not found:
        raise ZssError(f"{one_line(argument)}: no image matches; check the pattern")
    # A pattern like ** also names the folders on the way, whose images it names too.
    return [path for path in found if is_image(path) and not os.path.isdir(path)] or found


def _listed(path: Path) -> list[str]:
    """Paths of a text file; one that is gone is found when it is read, as any damaged image."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ZssError(f"@{path}: {error.strerror}; give a text file, one path per line") from None
    paths = [os.fsdecode(line).strip() for line in lines]
    return [_checked(path) for path in paths if path]


def _checked(path: str) -> str:
    if not is_image(path) and not os.path.isdir(path):
        raise ZssError(
            f"{one_line(path)} is no image of a kind that is read; give files that end in "
            f"{', '.join(SUFFIXES)}, or @FILE for a list of them"
        )
    return path


def is_image(path: str) -> bool:
    """Whether a file is one to read by its name."""
    return path.lower().endswith(SUFFIXES)


def _walk(folder: str, results: _Results, above: tuple[object, ...]) -> Iterator[str]:
    """Images in a folder and, through links too, in those below it."""
    identity = _identity(folder)
    if identity in above:  # a link that leads back
        return
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ZssError(
            f"{one_line(folder)}: cannot be listed ({error.strerror}); check the folder and its "
            "permissions"
        ) from None
    for entry in listed:
        # Also ._FILE, where macOS keeps what belongs to FILE.
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            if not results.hold(entry.path):
                yield from _walk(entry.path, results, (*above, identity))
            elif not results.are(entry.path):
                results.met.append(entry.path)
        elif is_image(entry.name):
            yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: str) -> object:
    """Equal for two spellings of one folder; None where there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _each_once(folders: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Files by folder, outer folders first, and the files that were there more than once."""
    seen: set[str] = set()
    doubled: dict[str, None] = {}
    roots: dict[str, list[str]] = {}
    for folder in sorted(folders):
        for path in folders[folder]:
            if path in seen:
                doubled[path] = None
                continue
            seen.add(path)
            roots.setdefault(folder, []).append(path)
    return roots, list(doubled)


def _named(roots: dict[str, list[str]]) -> tuple[list[Image], list[str]]:
    prefixes = [""]
    if len(roots) > 1:
        prefixes = [f"{name}/" for name in short_names(list(map(Path, roots)))]
    paths: dict[str, str] = {}
    for prefix, (root, found) in zip(prefixes, roots.items(), strict=True):
        start = len(os.path.join(root, ""))
        for path in found:
            file = prefix + path[start:].replace(os.sep, "/")
            if file in paths:
                raise ZssError(
                    f"{one_line(path)} and {one_line(paths[file])} would both be {one_line(file)} "
                    "in the output; label one of them into another --output"
                )
            paths[file] = path
    files = sorted(paths)
    names = _different_names(files)
    notes = []
    whole = [file for file in files if names[file] == file]
    if whole:
        notes.append(
            f"{len(whole)} images, such as {one_line(whole[0])}, differ from others in their "
            "suffix only; their results are named with it"
        )
    return [Image(paths[file], file, names[file]) for file in files], notes


def _different_names(files: Sequence[str]) -> dict[str, str]:
    """Names without suffix; with it where two would be the same."""
    names = {file: file[: file.rindex(".")] for file in files}
    while True:
        counts = Counter(names.values())
        same = [file for file, name in names.items() if counts[name] > 1 and name != file]
        if not same:
            return names
        names.update((file, file) for file in same)
