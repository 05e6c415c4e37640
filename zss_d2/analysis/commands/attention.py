"""Where the last decoder layer attends: image and one column of cross-attention maps per run.

    zss attention output/sweep/zegclip_mini/seed0 output/sweep/ldvc_mini/seed0 \\
        --images 3 --output attention.png

Figures 1 and 5 of LDVC show such maps. For every image there is a row for the unseen and one for
the seen class that cover most of it; a white line is the outline of the class in the ground truth.
The attention of LDVC's tokens sums to one over the classes, that of ZegCLIP's classes over the
tokens; either way a map is averaged over heads and drawn from its minimum (dark) to its maximum
(bright).

--measure says in numbers how well it is aligned with the ground truth: the share of a class's
attention that falls inside its region and how often its strongest token does (the pointing game),
both against the region's share of the image; and the share of attention that tokens give to their
own class. It prints a table and writes the JSON file of the same name beside the picture. Runs
whose settings differ in the seed alone are one line, with the 95 % interval of Student's t over the
runs; --over names keys in which they may differ as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from zss_d2.analysis.commands.pictures import check_picture, runs_parser, write_picture
from zss_d2.errors import ZssError, command
from zss_d2.utils.command_line import Parser, check_output, whole


def make_parser() -> Parser:
    parser = runs_parser(__doc__, images=3, output="attention.png")
    parser.add_argument(
        "--measure",
        type=whole(1),
        metavar="N",
        help="also measure the alignment on so many images of the test set, evenly spaced",
    )
    parser.add_argument(
        "--over",
        nargs="*",
        default=[],
        metavar="KEY",
        help="for --measure: keys that repetitions may differ in",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_picture(args.output)
    numbers = args.output.with_suffix(".json")
    if args.measure:
        check_output(numbers)
    elif args.over:
        raise ZssError("--over would have no effect without --measure; add it or leave --over out")

    from zss_d2.analysis import attention
    from zss_d2.analysis.comparison import load_models

    loaded = load_models(args.runs, args.opts)
    write_picture(args.output, attention.draw(args.runs, *loaded, args.images))
    if args.measure:
        from zss_d2.analysis.alignment import run_alignment
        from zss_d2.utils.writing import write_atomic

        text, content = run_alignment(args.runs, *loaded, args.measure, args.over)
        written = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomic(numbers, lambda path: path.write_text(written, "utf-8"))
        print(f"\n{text}\nnumbers written to {numbers}")
    return 0
