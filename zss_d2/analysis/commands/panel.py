"""A picture of what models see: image, ground truth and one column per trained run.

    zss panel output/sweep/maskclip_mini/seed0 output/sweep/ldvc_mini/seed0 \\
        --images 6 --output panel.png

A run is a folder that ``train_net.py`` has written; its ``config.yaml`` says which model and data
(the first of ``DATASETS.TEST``). Columns are named by what tells the folders apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from zss_d2.analysis.commands.pictures import check_picture, runs_parser, write_picture
from zss_d2.errors import command
from zss_d2.utils.command_line import Parser


def make_parser() -> Parser:
    return runs_parser(__doc__, images=6, output="panel.png")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_picture(args.output)

    from zss_d2.analysis import panel

    write_picture(args.output, panel.draw(args.runs, args.images, args.opts))
    return 0
