"""Whether class embeddings drift in a decoder, or tokens contract toward them.

    zss drift output/sweep/zegclip_mini/seed* output/sweep/ldvc_mini/seed* --output output/drift

At every stage of a decoder, for seen and unseen classes: the cosine of dense tokens to the
embedding of their own class and to the best other one, and their spread within and between classes;
of a decoder that changes class embeddings (ZegCLIP), how far these are from what entered it, how
they spread over the images, and whether the nearest other class is another one. Of a method without
decoder there is one stage. Cosines and spreads are of directions.

A token's class is that of at least --share of its pixels in the ground truth; others (mixed, void)
do not count. Measures are means over classes. Writes drift.json (every class too), drift.md, and
drift.png: text embeddings and what moves in the plane of their first two principal components.

Runs whose settings differ in the seed alone are one line, with the 95 % interval of Student's t
over the runs; --over names keys in which they may differ as well. The picture shows the first of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, between, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_runs()
    parser.add_argument("--output", type=Path, default=Path("output/drift"), metavar="DIR")
    parser.add_argument(
        "--images",
        type=whole(1),
        default=200,
        metavar="N",
        help="of the test set, evenly spaced (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        type=between(0.5, 1),
        default=0.75,
        metavar="S",
        help="of a token's pixels that its class has, 0.5 to 1 (default: %(default)s)",
    )
    parser.add_over()
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.drift.session import run_drift

    options = {"images": args.images, "share": args.share, "over": args.over, "opts": args.opts}
    print(run_drift(args.runs, args.output, **options))
    print(f"written to {args.output}: drift.json, drift.md, drift.png")
    return 0
