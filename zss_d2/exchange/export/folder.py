"""``zss export --format folder``: a model as a folder to share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError
from zss_d2.predict.pretrained import require_room, save_pretrained

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor

# Options of files, with their defaults: a folder can be asked anything later.
_OF_FILES = {
    "classes": None,
    "classes_file": None,
    "embeddings": "baked",
    "size": None,
    "resize": "inside",
    "argmax": "outside",
    "int8": False,
    "check": [],
}


def check(args: argparse.Namespace) -> None:
    """Raise `ZssError` for options that a folder has no use for, and a place that is taken."""
    for name, default in _OF_FILES.items():
        if getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise ZssError(f"{option} is of files, and --format is folder; leave it out")
    require_room(args.output, args.overwrite)


def write(args: argparse.Namespace, predictor: Predictor) -> int:
    """Write the model of the command line; returns the exit status."""
    results = Path(args.model) / "results.json"
    # Of a method without training there is no checkpoint beside which they would be looked for.
    known = results if not predictor.checkpoint and results.is_file() else None
    save_pretrained(predictor, args.output, overwrite=args.overwrite, results=known)
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"{args.output}: {size / 2**20:.1f} MiB; README.md has a licence to fill in")
    return 0
