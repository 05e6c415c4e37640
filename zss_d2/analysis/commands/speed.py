"""Throughput against score: how fast runs label one image on this machine, and how well.

    zss speed output/ldvc_mini output/clip_zss_mini output/maskclip_mini --output output/speed

Every run is timed under its own test protocol, one image at a time, from the image in memory to the
labels on the device (class names are embedded before, files are not read). All are timed in turn,
round after round, and the median is what counts. The score is that of the run's results.json.

Writes speed.json, speed.md and a chart, speed.png, with a logarithmic axis of images per second.
Runs whose settings differ in the seed alone (and in the keys of --over) are one point: the first of
them is timed, the score is the mean with its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_runs()
    parser.add_argument("--output", type=Path, default=Path("output/speed"), metavar="DIR")
    parser.add_argument(
        "--metric", default="hIoU", metavar="NAME", help="of results.json (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=whole(16, 8192),
        default=0,
        metavar="PX",
        help="side of a random square image; default: the first test image, as the first run "
        "sees it",
    )
    parser.add_argument(
        "--rounds", type=whole(1, 1000), default=9, metavar="N", help="default: %(default)s"
    )
    parser.add_over()
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.speed.session import run_speed

    text = run_speed(
        args.runs,
        args.output,
        metric=args.metric,
        size=args.size,
        rounds=args.rounds,
        over=args.over,
        opts=args.opts,
    )
    print(text)
    files = [x for x in ("speed.json", "speed.md", "speed.png") if (args.output / x).is_file()]
    print(f"written to {args.output}: {', '.join(files)}")
    return 0
