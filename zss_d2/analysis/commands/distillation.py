"""What a student of CLIP-ZSS has learnt at every checkpoint, against the full ground truth.

    zss distillation output/sweep/clip_zss_mini/seed* --output output/distillation

On training images that hold an unseen class, seen as in a test: how often GLM's prediction of a CLS
token is nearest to the token of its own image, and by what margin; how pure the pseudo regions are
and how much of the unseen classes they cover; the cosine of the prototype of a region to the text
embedding of the class that the region is of, and to the nearest seen one. Beside them the mIoU-U of
the evaluation at that iteration, and over three runs or more how the measures go with it at the
last checkpoint.

It is a diagnostic: training sees none of the labels that this looks at. Writes distillation.json,
distillation.md and curves, distillation.png. Runs whose settings differ in the seed alone (and in
the keys of --over) are one line with its 95 % interval. Checkpoints are those that a run has kept
(SOLVER.CHECKPOINT_PERIOD, SOLVER.CHECKPOINT_KEEP).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_runs()
    parser.add_argument("--output", type=Path, default=Path("output/distillation"), metavar="DIR")
    parser.add_argument(
        "--images",
        type=whole(1),
        default=100,
        metavar="N",
        help="of the training set, the first with an unseen class (default: %(default)s)",
    )
    parser.add_over()
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.distillation.session import run_distillation

    options = {"images": args.images, "over": args.over, "opts": args.opts}
    print(run_distillation(args.runs, args.output, **options))
    print(f"written to {args.output}: distillation.json, distillation.md, distillation.png")
    return 0
