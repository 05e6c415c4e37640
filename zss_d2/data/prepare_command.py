"""Prepare a data set; what ``python datasets/prepare_NAME.py`` does.

zss prepare voc --voc-root /data/VOCdevkit/VOC2012
zss prepare mini --check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from zss_d2.data import sets
from zss_d2.utils.command_line import Parser


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; returns the exit status."""
    names = sorted(module.name for module in iter_modules(sets.__path__))
    parser = Parser(__doc__, usage="%(prog)s NAME ...", add_help=not argv or argv[0] not in names)
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see zss prepare NAME --help")
    args = parser.parse_args(argv)
    sys.argv[0] = f"{sys.argv[0]} {args.name}"
    return import_module(f"{sets.__name__}.{args.name}").run(args.options)
