"""How fragmented and how consistent the predicted regions of finished runs are.

    zss fragments output/sweep/zegclip_mini/seed* output/sweep/ldvc_mini/seed*

An evaluation measures that (docs/evaluation.md). Where one was made before there was such a
measure, or with TEST.FRAGMENTATION off, its stored predictions (TEST.PREDICTIONS png) are counted
here or, without them, the images are labelled anew by the last checkpoint; the numbers are then
added to the results.json of the run, which reports and tables read.

Runs whose settings differ in the seed alone are one line, with the 95 % interval of Student's t
over the runs; --over names keys in which they may differ as well. The differences of the other
lines to the first one are those of runs with the same seed. Writes fragments.json (single runs and
classes too) and fragments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_runs()
    parser.add_argument("--output", type=Path, default=Path("output/fragments"), metavar="DIR")
    parser.add_over()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.fragments.session import run_fragments

    print(run_fragments(args.runs, args.output, args.over))
    print(f"written to {args.output}: fragments.json, fragments.md")
    return 0
