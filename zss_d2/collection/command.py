"""Label images with your own words: files, folders, collections of any size.

    zss predict images --classes cat dog "sofa|couch" --background wall floor --output out
    zss predict a.jpg "b/**/*.png" @list.txt --config-file output/run --classes-file words.txt \\
        --formats labels overlay coco --batch 16 --output out
    torchrun --nproc-per-node 8 predict.py images ...

Folders are read with all that is in them, and results lie as the images do. The same command goes
on where it was stopped. Exit status 1: some images could not be labelled, predict.json says why.
docs/predict.md says more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError, command
from zss_d2.predict.formats import FORMATS, collection_formats, image_formats
from zss_d2.predict.options import BATCH, SIDE_PX, Options
from zss_d2.utils.command_line import Parser, between, check_output, whole
from zss_d2.utils.text import one_line

if TYPE_CHECKING:
    from zss_d2.predict.words import Words


def make_parser() -> Parser:
    formats = "\n".join(f"  {name:13}{form.about}" for name, form in FORMATS.items())
    parser = Parser(__doc__, epilog=f"formats:\n{formats}")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="files, folders, patterns in quotes, @FILE with a path per line",
    )
    _add_model(parser.add_argument_group("model"))
    _add_words(parser.add_argument_group("words"))
    _add_results(parser.add_argument_group("results"))
    _add_images(parser.add_argument_group("how images are taken through the model"))
    parser.add_opts()
    return parser


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config-file",
        metavar="YAML_OR_RUN",
        help="config, or folder of a run (default: CLIP's ViT-B/16 without training, see "
        "docs/training_free.md)",
    )
    group.add_argument(
        "--weights", metavar="PTH", help="checkpoint (default: of the run or the config)"
    )
    group.add_argument(
        "--device", default="auto", help="auto (CUDA, then MPS, then CPU), cpu, cuda, mps"
    )


def _add_words(group: argparse._ArgumentGroup) -> None:
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--classes",
        nargs="+",
        metavar="WORD",
        help="in the order of their ids; sofa|couch: two wordings of one class",
    )
    source.add_argument(
        "--classes-file", type=Path, metavar="TXT", help="one per line, # begins a comment"
    )
    group.add_argument(
        "--background",
        nargs="+",
        default=[],
        metavar="WORD",
        help="words that compete and come out as background, id 0",
    )
    group.add_argument(
        "--unknown-below",
        nargs="+",
        type=_threshold,
        default=[],
        metavar="[WORD=]SCORE",
        help="pixels whose best score, 0 to 1, is lower are unknown; of all or of one class",
    )
    sentences = group.add_mutually_exclusive_group()
    sentences.add_argument(
        "--templates",
        nargs="+",
        metavar="SENTENCE",
        help='with {} for the word, such as "a photo of a {}."',
    )
    sentences.add_argument(
        "--template-set", metavar="NAME", help="single, coco15 or imagenet80 (docs/clip.md)"
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    group.add_argument(
        "--formats",
        nargs="+",
        default=["labels", "overlay"],
        metavar="FORMAT",
        help="see below (default: labels overlay)",
    )
    group.add_argument(
        "--opacity",
        type=between(0, 1),
        metavar="X",
        help="of labels in overlays and the sheet (default: 0.5)",
    )
    group.add_argument(
        "--sheet",
        nargs="?",
        const=12,
        type=whole(1, 200),
        metavar="N",
        help="also sheet.png: the first N images beside their labels (12 if N is left out)",
    )
    group.add_argument(
        "--no-legend", dest="legend", action="store_false", help="overlays without a legend"
    )


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch",
        type=whole(*BATCH),
        metavar="N",
        help="images of one size, or tiles of a large one, at once (default: TEST.BATCH of the "
        "config, which is 16 on a GPU and 1 on a CPU)",
    )
    group.add_argument(
        "--size",
        type=whole(*SIDE_PX, or_0=True),
        metavar="PX",
        help="shorter edge of images; 0: as they are (default: the config's)",
    )
    group.add_argument(
        "--tile",
        type=whole(*SIDE_PX, or_0=True),
        metavar="PX",
        help="side of the tiles of large images; 0: never in tiles (default: by the config)",
    )
    group.add_argument(
        "--overlap",
        type=between(0, 0.5),
        metavar="X",
        help="of tiles, as a share of their side (default: 0.25)",
    )
    group.add_argument(
        "--large",
        type=between(0.001, 1e6),
        default=64.0,
        metavar="MP",
        help="megapixels above which an image is read by windows, which needs zss_d2[geo]; its "
        "labels are a GeoTIFF, as those of images with a georeference (default: 64)",
    )
    group.add_argument(
        "--seen-bias",
        type=between(-1, 1),
        metavar="X",
        help="subtracted from scores of classes that were trained (default: the config's)",
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)
    image_formats(args.formats), collection_formats(args.formats)
    _check_effects(args)

    from zss_d2.collection.session import run

    options = Options(
        seen_bias=args.seen_bias,
        size=args.size,
        tile=args.tile,
        **({} if args.overlap is None else {"overlap": args.overlap}),
        batch=args.batch,
        class_scores="npz" in args.formats,
    )
    return run(args, _words(args), options)


def _check_effects(args: argparse.Namespace) -> None:
    """Raise `ZssError` for options that would have no effect, beside those that are given."""
    has_overlay = not {"overlay", "overlay-jpg"}.isdisjoint(args.formats)
    for useless, reason in (
        (
            args.sheet and "labels" not in args.formats,
            "--sheet is drawn from label maps; add labels to --formats",
        ),
        (
            args.opacity is not None and not (has_overlay or args.sheet),
            "--opacity is of overlays; add overlay to --formats, or leave it out",
        ),
        (
            not args.legend and not has_overlay,
            "--no-legend is of overlays; add overlay to --formats, or leave it out",
        ),
        (
            args.overlap is not None and args.tile == 0,
            "--overlap is of tiles, and --tile 0 makes none; leave one of them out",
        ),
    ):
        if useless:
            raise ZssError(reason)


def _threshold(text: str) -> tuple[str, float]:
    """``0.4`` or ``cat=0.4`` -> (class or "", score)."""
    name, _, score = text.rpartition("=")
    return one_line(name), between(0, 1)(score)


def _words(args: argparse.Namespace) -> Words:
    from zss_d2.clip.templates import template_set
    from zss_d2.predict.words import Words, read_words

    texts = args.classes or read_words(args.classes_file)
    given = _thresholds(args.unknown_below)
    thresholds = dict.fromkeys(Words.of(texts).names, given.pop("", 0.0))
    templates = template_set(args.template_set) if args.template_set else args.templates
    return Words.of(texts, args.background, {**thresholds, **given}, templates)


def _thresholds(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Scores by class, "" for all, each of which is given once."""
    scores: dict[str, float] = {}
    for name, score in pairs:
        if name in scores:
            of = f"of {name!r}" if name else "of all classes"
            raise ZssError(f"--unknown-below has two scores {of}; give one of them")
        scores[name] = score
    return scores
