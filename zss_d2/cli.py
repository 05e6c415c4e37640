"""The console command ``zss``: one sub-command per tool, each loaded only when it is asked for."""

from __future__ import annotations

import argparse
import difflib
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import zss_d2
from zss_d2.errors import ZssError, command

# Name: (module with a ``main(argv)``, what it does in one line).
COMMANDS = {
    "train": ("train", "train or evaluate a method, on one or several GPUs"),
    "prepare": ("data.prepare_command", "prepare a data set for training and tests"),
    "masks": (
        "data.exports.command",
        "a data set from annotations of CVAT, Label Studio, COCO, or colour masks",
    ),
    "check": ("data.prepare.check_command", "check a custom dataset or a prepared benchmark"),
    "sweep": (
        "analysis.commands.sweep",
        "train configs over seeds or values and collect one table",
    ),
    "report": ("analysis.commands.report", "one page about one or several runs"),
    "panel": (
        "analysis.commands.panel",
        "images, their masks and the labels of several runs side by side",
    ),
    "fragments": (
        "analysis.commands.fragments",
        "fragments, consistency and boundaries of runs' predictions",
    ),
    "attention": ("analysis.commands.attention", "maps of the decoder's cross-attention"),
    "drift": (
        "analysis.commands.drift",
        "class embeddings and tokens along the decoder: what moves toward what",
    ),
    "plm": ("analysis.commands.plm", "pseudo labels of CLIP-ZSS and what they are made of"),
    "distillation": (
        "analysis.commands.distillation",
        "retrieval, pseudo regions and prototypes of CLIP-ZSS along its training",
    ),
    "pseudo": (
        "analysis.pseudo.command",
        "pseudo labels of self-training against the ground truth that it never saw",
    ),
    "bias": ("analysis.commands.bias", "seen and unseen mIoU against the seen bias"),
    "speed": ("analysis.commands.speed", "images per second against the score, in one chart"),
    "complexity": ("analysis.commands.complexity", "parameters and multiply-adds of a config"),
    "toy-voc": ("data.synthetic.toy_voc", "draw a few images in the layout of VOC 2012"),
    "toy-custom": ("data.synthetic.toy_custom", "draw a small custom dataset with its yaml"),
    "predict": ("collection.command", "label images and folders of images with your own words"),
    "export": ("exchange.export.command", "a model as an ONNX file or a torch.export program"),
    "web": ("web.command", "a page in the browser that labels images with words"),
    "import": ("exchange.import_command", "convert a released checkpoint to a model folder"),
    "mini-clip": ("mini_clip.command", "pretrain the CLIP of the mini world"),
}


def make_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="zss",
        usage="zss [--help] [--version] COMMAND ...",
        description="Generalised zero-shot semantic segmentation.",
        epilog="\n".join(["commands:", *lines, "", "zss COMMAND --help says more about one."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"zss_d2 {zss_d2.__version__}")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit status."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name.startswith("-"):
        make_parser().parse_args([name])
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ZssError(f"{name!r} is no command of zss{meant}; use one of {', '.join(COMMANDS)}")
    # Parsers take the name of the program from there.
    sys.argv = [f"zss {name}", *rest]
    return import_module(f"zss_d2.{COMMANDS[name][0]}").main(rest)


if multiprocessing.current_process().name != "MainProcess":
    # One of several processes of `zss train`; until it listens, Ctrl-C just ends it, and the first
    # one says so. (Its parent_process() is not known yet.)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if __name__ == "__main__":
    sys.exit(main())
