"""A model as one file that runs elsewhere without this project: ONNX, or a program of torch.export.
Or as a folder to share, that this project loads.

    zss export output/run --output model.onnx
    zss export output/run --classes cat dog "sofa|couch" --size 512 --argmax inside --output a.onnx
    zss export output/run --embeddings input --classes cat dog --output any.onnx
    zss export configs/clip_zss_voc.yaml --weights student.pth --format torch --output model.pt2
    zss export output/run --format folder --output ldvc-voc

Images are float32 RGB in 0..255, (batch, 3, height, width), in batches of any number. A student
(CLIP-ZSS) goes without CLIP, any other method without its text tower. The file is compared with
the model before it is there: scores within 1e-4, the best class equal on 99.9 % of the pixels.
docs/deploy.md says more, and has a script that labels a photo with it; docs/sharing.md of folders.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError, command
from zss_d2.utils.command_line import Parser, check_output, whole

if TYPE_CHECKING:
    import numpy as np

    from zss_d2.exchange.export.graph import GraphSettings
    from zss_d2.predict.predictor import Predictor

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
_FOLDER = "folder"
# Options of what a network is written as, with their defaults.
_OF_NETWORKS = {"size": None, "resize": "inside", "argmax": "outside", "int8": False, "check": []}
# Of an image, px: what is smaller shows a network nothing.
_SIDE_PX = 32, 8192


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="YAML_OR_RUN", help="folder of a run, or a config")
    parser.add_argument(
        "--weights", metavar="PTH", help="checkpoint (default: of the run or the config)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="ONNX_OR_PT2")
    parser.add_argument(
        "--format", choices=[*_SUFFIXES, _FOLDER], help="default: by the suffix, never a folder"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the model that the folder holds"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--classes",
        nargs="+",
        metavar="WORD",
        help="in the order of their ids; sofa|couch: two wordings of one class (default: those of "
        "the data set that the model was trained on)",
    )
    source.add_argument(
        "--classes-file", type=Path, metavar="TXT", help="one per line, # begins a comment"
    )
    parser.add_argument(
        "--embeddings",
        choices=("baked", "input", "only"),
        default="baked",
        help="baked: the classes are constants (default); input: their embeddings (K, C) are an "
        "input, and those of --classes are written beside the file, as NAME.npz; only: nothing "
        "but that npz, of other classes for such a file",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="PX",
        help="of images, 512 or HEIGHTxWIDTH (default: any multiples of the model's patch or "
        "stride; some models take one size only)",
    )
    for name, default, what in (
        ("resize", "inside", "enlarge logits to the size of the image and make scores of them"),
        ("argmax", "outside", "give labels and the scores of these instead of all scores"),
    ):
        parser.add_argument(
            f"--{name}",
            choices=("inside", "outside"),
            default=default,
            help=f"{what} in the file (default: {default})",
        )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="of a student, write NAME.int8.onnx too, with weights in 8 bits; how far that is from "
        "the model is printed, not limited",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images that the file is compared with the model on (default: made-up ones)",
    )
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    if args.format == _FOLDER:
        from zss_d2.exchange.export import folder

        folder.check(args)
        return folder.write(args, _load(args))
    if args.overwrite:
        raise ZssError("--overwrite is of --format folder; leave it out, files are written over")
    check_output(args.output)
    args.format = _format(args)
    if args.embeddings == "only":
        _check_of_networks(args)
        return _write_embeddings(args, _load(args))

    from zss_d2.exchange.export.graph import GraphSettings

    if args.int8 and args.format != "onnx":
        raise ZssError("--int8 is of ONNX files; give an --output in .onnx, or leave it out")
    settings = GraphSettings(
        size=args.size,
        resize=args.resize == "inside",
        argmax=args.argmax == "inside",
        embeddings=args.embeddings == "input",
    )
    if args.format == "onnx":
        from zss_d2.exchange.export.onnx_file import require_packages

        require_packages()
    with _quiet():
        return _export(args, settings)


@contextmanager
def _quiet() -> Iterator[None]:
    """What is loaded logs more than anybody who exports wants to know."""
    logger = logging.getLogger("zss_d2")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_of_networks(args: argparse.Namespace) -> None:
    """Raise `ZssError` for options of what is not written where embeddings alone are."""
    for name, default in _OF_NETWORKS.items():
        if getattr(args, name) != default:
            raise ZssError(
                f"--{name} is of a network, and --embeddings only writes none; leave it out"
            )


def _export(args: argparse.Namespace, settings: GraphSettings) -> int:
    from zss_d2.exchange.export import exporting

    say = _Progress()
    predictor = _load(args)
    names = _names(args, predictor)
    if args.int8 and not hasattr(predictor.segmentor, "student"):
        raise ZssError(
            f"--int8 is of students, and this is {type(predictor.segmentor).__name__}; leave it out"
        )
    for note in _left_out(predictor, settings):
        print(f"note: {note}", file=sys.stderr)
    images = _check_images(args, predictor, settings)
    say("tracing the model (torch.export)")
    exported = exporting.traced(predictor, names, settings)
    write = exporting.write_onnx if args.format == "onnx" else exporting.write_program
    parity = write(exported, args.output, images, say)
    say.end()
    print(f"{args.output}: {_mib(args.output)}, {len(names)} classes")
    print(f"the same as the model: {parity}")
    if args.int8:
        from zss_d2.exchange.export.int8 import write_int8
        from zss_d2.exchange.export.onnx_file import OnnxSession

        small = args.output.with_suffix(".int8.onnx")
        write_int8(args.output, small)
        print(f"{small}: {_mib(small)}")
        print(f"how far that is from the model: {exported.parity(OnnxSession(small), images)}")
    if settings.embeddings:
        return _write_embeddings(args, predictor)
    return 0


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _write_embeddings(args: argparse.Namespace, predictor: Predictor) -> int:
    from zss_d2.exchange.export.exporting import write_embeddings

    names = _names(args, predictor)
    path = args.output.with_suffix(".npz")
    write_embeddings(path, predictor.segmentor, names)
    print(f"{path}: embeddings of {len(names)} classes")
    return 0


def _load(args: argparse.Namespace) -> Predictor:
    from zss_d2.api import load_model

    return load_model(args.model, args.weights, "cpu", args.opts, training_free=False)


def _names(args: argparse.Namespace, predictor: Predictor) -> Sequence[str]:
    from zss_d2.predict.words import Words, read_words

    texts = args.classes or (args.classes_file and read_words(args.classes_file))
    return Words.of(texts).vocabulary if texts else predictor.segmentor.classes


def _left_out(predictor: Predictor, settings: GraphSettings) -> list[str]:
    """What the config says of tests and the file does not do, a line each."""
    test, protocol = predictor.cfg.TEST, predictor.segmentor.protocol
    by_caller = [
        (test.SLIDE.ENABLED, "TEST.SLIDE"),
        (test.FLIP, "TEST.FLIP"),
        (tuple(test.SCALES) != (1.0,), "TEST.SCALES"),
        (protocol.seen_bias and (settings.embeddings or not settings.resize), "TEST.SEEN_BIAS"),
        (protocol.background_below, "TEST.BACKGROUND_BELOW"),
    ]
    notes = [f"{name} is not in the file; it is for the caller" for on, name in by_caller if on]
    if predictor.segmentor.precision.autocast is not None:
        notes.append("MODEL.AUTOCAST is left out: the file computes in single precision")
    return notes


def _check_images(
    args: argparse.Namespace, predictor: Predictor, settings: GraphSettings
) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 of a size that the file takes."""
    from zss_d2.exchange.export.images import check_images, made_up_images

    step = predictor.segmentor.size_divisibility
    if args.check:
        return check_images(args.check, predictor.cfg, settings.size, 2 * step)
    if settings.size is not None:
        return made_up_images([settings.size] * 2)
    # One of the least size, one that is to be padded, and one as large as in a training.
    crop = predictor.cfg.INPUT.CROP
    large = tuple(crop.SIZE) if crop.ENABLED else (512, 512)
    return made_up_images([(2 * step, 2 * step), (3 * step - 5, 5 * step - 1), large])


def _format(args: argparse.Namespace) -> str:
    """The format that is asked for, or that the suffix is of.

    Raises:
        ZssError: the suffix is of no format, or of another one.
    """
    suffix = args.output.suffix
    if args.embeddings == "only":
        if suffix != ".npz" or args.format:
            raise ZssError(
                f"--embeddings only writes an npz, and --output is {args.output}"
                f"{f' with --format {args.format}' if args.format else ''}; give a name in .npz "
                "and no format"
            )
        return ""
    formats = [name for name, own in _SUFFIXES.items() if own == suffix]
    if not formats or args.format not in (None, *formats):
        raise ZssError(
            f"--output {args.output} does not end in "
            f"{_SUFFIXES[args.format] if args.format else ' or '.join(_SUFFIXES.values())}; give "
            "another name"
        )
    return formats[0]


def _size(text: str) -> tuple[int, int]:
    """``512`` or ``HEIGHTxWIDTH`` -> height and width, px."""
    match = re.fullmatch(r"([^x]+)(?:x([^x]+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give 512 or 384x512")
    side = whole(*_SIDE_PX)
    return side(match[1]), side(match[2] or match[1])


class _Progress:
    """Says what is being done, and for how long what was before took."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __call__(self, what: str) -> None:
        self.end()
        self._since = time.monotonic()
        print(f"{what} ...", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._since is not None:
            print(f"  {time.monotonic() - self._since:.0f} s", file=sys.stderr, flush=True)
        self._since = None
