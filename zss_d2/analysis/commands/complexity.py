"""Parameters and multiply-adds of methods, by fvcore, as a table.

    zss complexity configs/zegclip_voc.yaml configs/ldvc_voc.yaml --size 512

One image against all classes of the training data set, whose embeddings are computed beforehand, as
they are in testing. Weights do not matter and are not loaded. fvcore counts a multiply-add as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--size", type=whole(1), default=512, metavar="N", help="side of the image, px"
    )
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)

    from zss_d2.analysis import complexity

    print(complexity.table(args.configs, args.opts, args.size))
    return 0
