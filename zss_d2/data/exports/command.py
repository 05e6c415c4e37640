"""Turns annotations of a labelling tool into a data set to train on.

    zss masks coco.json --images photos --output yard --unseen stripe
    zss masks annotations.xml --images photos --output yard --background ground
    zss masks labelstudio.json labelstudio.xml --images photos --output yard --val-list val.txt

Read are COCO JSON, CVAT for images 1.1, CVAT Segmentation mask 1.1 and other folders of colour
masks with labelmap.txt, and Label Studio's JSON (its labelling interface beside it gives the
order of the classes, and colours). Which one it is, is seen from the content. Several files of one
export are read as one.

Written are DIR/masks, DIR/images (links), lists, and DIR/NAME.yaml, which `zss check`, training
and evaluation take. Nothing else is changed. The same command again does what is missing, and
what has changed in the export. Exit status 2 and one line per problem if something is wrong.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.data.files.images import require_folder
from zss_d2.data.prepare.data_command import data_command
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser, between, check_output
from zss_d2.utils.text import one_line

if TYPE_CHECKING:
    from zss_d2.data.exports.dataset import Description
    from zss_d2.data.exports.export import Export

# How many notes of one kind are shown.
_SHOWN = 5


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="zss masks")
    parser.add_argument(
        "sources", type=Path, nargs="+", metavar="SOURCE", help="files or folders of one export"
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with the images, at any depth; only read",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the data set to write"
    )
    parser.add_argument(
        "--name", help="of the data set, zss_NAME_train (default: that of the --output folder)"
    )
    parser.add_argument(
        "--unseen",
        nargs="*",
        default=[],
        metavar="CLASS",
        help="classes that training shall not see; `all` for a data set to test on (default: none)",
    )
    parser.add_argument(
        "--background",
        metavar="CLASS",
        help="class of the pixels that no annotation covers, a new one or one that is there "
        "(default: they are void, neither trained on nor scored)",
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--val",
        type=between(0, 0.9),
        default=0.2,
        metavar="SHARE",
        help="of the images to validate on, the same ones every time; 0 for none (%(default)s)",
    )
    split.add_argument(
        "--val-list", type=Path, metavar="FILE", help="images to validate on, one per line"
    )
    parser.add_argument("--copy", action="store_true", help="copy the images instead of linking")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out images with problems, and say which"
    )
    parser.add_workers()
    return parser


@data_command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)
    require_folder(args.images, "let --images name the folder with the images")
    _keep_apart(args)
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    from zss_d2.data.exports.dataset import write_masks
    from zss_d2.data.exports.images import Images
    from zss_d2.data.exports.plan import claim, make_plan, pair_up, read_val_list
    from zss_d2.data.exports.recognise import read_exports

    export = read_exports(args.sources)
    if not export.classes:
        return _complain_of_no_class(export)
    plan = make_plan(export, args.output, args.name, args.background, args.unseen)
    classes = ", ".join(map(one_line, plan.classes))
    print(
        f"{', '.join(map(str, args.sources))}: {export.tool}, {len(export.pictures)} images, "
        f"{len(plan.classes)} classes: {classes}"
    )
    images = Images(args.images)
    items, bad = pair_up(export, images, empty_too=args.background is not None)
    val = read_val_list(args.val_list, images, items) if args.val_list else args.val
    claim(args.output)
    results = write_masks(
        items, args.output, plan.painter, args.copy, args.workers, plan.description.name
    )
    bad += [result.problem for result in results if result.problem]
    _print_notes(export.notes)
    _print_notes(note for result in results for note in result.notes)
    if (bad or export.problems) and not args.skip_bad:
        return _complain([*export.problems, *bad])
    for problem in (*export.problems, *bad):
        print(f"note: left out: {one_line(problem)}")
    done = {
        item.image_id: result.state
        for item, result in zip(items, results, strict=True)
        if result.state in ("written", "kept")
    }
    _print_left_out(len(export.pictures), len(images.files), len(done), len(bad))
    if turned := sum(result.turned for result in results):
        print(f"note: {turned} images were annotated lying on their side; their masks are turned")
    return _finish(args, plan.description, done, val)


def _finish(
    args: argparse.Namespace,
    description: Description,
    done: Mapping[str, str],
    val: float | Collection[str],
) -> int:
    """Write lists and the description of what became of the images, by their ids."""
    from zss_d2.data.exports.plan import choose_val, write_lists
    from zss_d2.data.spec.custom import load_custom

    if not done:
        raise ZssError(f"{args.sources[0]}: no image has an annotation; nothing to train on")
    chosen = choose_val(list(done), val, args.output) if isinstance(val, float) else set(val)
    splits = {
        "train": [image_id for image_id in done if image_id not in chosen],
        "val": [image_id for image_id in done if image_id in chosen],
    }
    splits = {split: listed for split, listed in splits.items() if listed}
    write_lists(args.output, splits)
    if not description.write(splits):
        print(f"note: {description.path} was changed by hand and is kept as it is")
    load_custom(description.path)
    states = Counter(done.values())
    sizes = ", ".join(f"{len(listed)} {split}" for split, listed in splits.items())
    print(
        f"{description.name}: {sizes} images; {states['written']} masks written, "
        f"{states['kept']} were up to date\n{description.path} is ready; next: zss check "
        f"{shlex.quote(str(description.path))}"
    )
    return 0


def _keep_apart(args: argparse.Namespace) -> None:
    """Raise ZssError where the output would lie among the originals."""
    output, images = args.output.resolve(), args.images.resolve()
    if output == images or images in output.parents:
        raise ZssError(
            f"--output {args.output} lies in the folder of the images; give one beside it"
        )
    own = (output / "images", output / "masks")
    for original in (images, *(source.resolve() for source in args.sources)):
        if any(folder == original or folder in original.parents for folder in own):
            raise ZssError(
                f"--output {args.output} would be written over {original}; give another folder"
            )


def _complain(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"error: {one_line(problem)}", file=sys.stderr)
    print(
        f"{len(problems)} problem(s) in all; correct them and run the same command again, or leave "
        "these images out by --skip-bad",
        file=sys.stderr,
    )
    return 2


def _complain_of_no_class(export: Export) -> int:
    """Say what is wrong with the images, which may be why there is no class."""
    _print_notes(export.notes)
    bad = [
        f"{picture.source}: image {picture.image[0]}: {picture.problem}"
        for picture in export.pictures
        if picture.problem
    ]
    if problems := [*export.problems, *bad]:
        return _complain(problems)
    raise ZssError(f"{export.source}: names no class; annotate images, and export their labels too")


def _print_notes(notes: Iterable[str]) -> None:
    notes = list(notes)
    for note in notes[:_SHOWN]:
        print(f"note: {one_line(note)}")
    if len(notes) > _SHOWN:
        print(f"note: ... and {len(notes) - _SHOWN} more such")


def _print_left_out(described: int, there: int, kept: int, bad: int) -> None:
    empty = described - kept - bad
    if empty > 0:
        print(
            f"note: {empty} images have no annotation of a class and are left out (with "
            "--background CLASS they would show that class)"
        )
    if there > described:
        print(f"note: {there - described} images of the folder are not in the export")
