"""The trade between seen and unseen classes: one trained run under many seen biases.

    zss bias output/ldvc_mini --dataset zss_mini_dev --output output/bias

Every image goes through the network once. Writes ``bias.csv`` and ``bias.png``, and prints the area
under the seen/unseen curve and the bias with the best hIoU, for ``TEST.SEEN_BIAS``. Choose it on a
development set: by default the one of the run's benchmark, where there is one. It also prints the
unseen-only accuracy, that of the unseen classes when no pixel can be given to a seen one (bias 1):
what is missing then is confused among unseen classes, the rest of the loss goes to seen ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import ZssError, command
from zss_d2.utils.command_line import Parser, between, check_output

# All scores are needed here, whatever their size.
NEEDED = ("TEST.SEEN_BIAS", "0.0", "TEST.MAX_SCORES_MIB", str(1 << 30))


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--dataset", metavar="NAME", help="registered name; default: the dev split")
    parser.add_argument("--output", type=Path, default=Path("output/bias"), metavar="DIR")
    parser.add_argument(
        "--biases",
        nargs="+",
        type=between(-1, 1),
        metavar="B",
        help="default: 27 from -1 to 1; 0 and 1 are always added",
    )
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)
    if useless := sorted({*args.opts[::2]} & {*NEEDED[::2]}):
        raise ZssError(f"--opts {useless[0]} would have no effect here; leave it out")

    from zss_d2.analysis import bias
    from zss_d2.analysis.run_folder import RunFolder

    run = RunFolder(args.run)
    cfg = run.config([*NEEDED, *args.opts])
    if cfg.TEST.BACKGROUND_BELOW:
        raise ZssError(
            "TEST.BACKGROUND_BELOW acts on scores that are biased already, so the curve would not "
            "be that of evaluations; add --opts TEST.BACKGROUND_BELOW 0"
        )
    dataset = args.dataset or bias.development_set(run, cfg)
    bias.require_registered(dataset)
    biases = sorted({0.0, bias.ONLY_UNSEEN, *(args.biases or bias.BIASES)})
    rows = bias.measure(cfg, run.model(cfg), dataset, biases)
    bias.write(rows, f"{args.run.as_posix()} on {dataset}", args.output)
    best = max(rows, key=lambda row: row["hIoU"])
    accuracies = [
        f"{name} {among_all:.1f} -> {alone:.1f}"
        for name, (among_all, alone) in bias.unseen_only_accuracy(rows).items()
    ]
    print(
        f"area under the seen/unseen curve {bias.area(rows):.4f}; best hIoU {best['hIoU']:.1f} at "
        f"TEST.SEEN_BIAS {best['seen_bias']:g}; written to {args.output}\n"
        f"unseen-only accuracy: {', '.join(accuracies)}"
    )
    return 0
