"""Where the last decoder layer attends: image and one column of cross-attention maps per run.

    zss attention output/sweep/zegclip_mini/seed0 output/sweep/ldvc_mini/seed0 \\
        --images 3 --output attention.png

Figures 1 and 5 of LDVC show such maps. For every image there is a row for the unseen and one for
the seen class that cover most of it; a white line is the outline of the class in the ground truth.
The attention of LDVC's tokens sums to one over the classes, that of ZegCLIP's classes over the
tokens; either way a map is averaged over heads and drawn from its minimum (dark) to its maximum
(bright).
"""

from __future__ import annotations

from collections.abc import Sequence

from zss_d2.analysis.commands.pictures import check_picture, runs_parser, write_picture
from zss_d2.errors import command
from zss_d2.utils.command_line import Parser


def make_parser() -> Parser:
    return runs_parser(__doc__, images=3, output="attention.png")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_picture(args.output)

    from zss_d2.analysis import attention

    write_picture(args.output, attention.draw(args.runs, args.images, args.opts))
    return 0
