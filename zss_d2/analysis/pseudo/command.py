"""How good the pseudo labels of a run are, against ground truth that its training never saw.

    zss pseudo output/ldvc_mini --images 500 --output output/pseudo \\
        --opts ZERO_SHOT.SELF_TRAINING.THRESHOLD 0.5

Every image goes through the network as it is. What self-training would label by the run's settings
(``ZERO_SHOT.SELF_TRAINING``, which --opts changes) is compared with the full ground truth: which
share of the pixels without a seen label gets one, how much of that is right, how much stands on
void, and the same for every unseen class. The weights are the run's last ones, whatever SOURCE
says, or none with SOURCE offline. Look on held-out views, where it is allowed: settings that were
chosen by the unseen classes of a benchmark have seen what is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, of any setting")
    parser.add_argument(
        "--dataset", metavar="NAME", help="registered name; default: the first of DATASETS.TRAIN"
    )
    parser.add_argument(
        "--images", type=whole(1), default=200, metavar="N", help="evenly spaced; default: 200"
    )
    parser.add_argument("--output", type=Path, default=Path("output/pseudo"), metavar="DIR")
    parser.add_opts()
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.pseudo import quality as pseudo
    from zss_d2.analysis.run_folder import RunFolder

    run = RunFolder(args.run)
    # An inductive run, too, has weights that could begin to train themselves.
    cfg = run.config(["ZERO_SHOT.SETTING", "transductive", *args.opts])
    dataset = args.dataset or cfg.DATASETS.TRAIN[0]
    pairs = pseudo.count_pairs(cfg, run.model(cfg), dataset, args.images)
    result = pseudo.quality(*pairs)
    pseudo.write(result, args.output / "pseudo.csv")
    print(
        f"{result.coverage:.1f} % of the pixels without a seen label get a pseudo label; on unseen "
        f"objects {result.accuracy:.1f} % of them are right; {result.on_void:.1f} % stand on void\n"
        f"{pseudo.table(result)}\nwritten to {args.output / 'pseudo.csv'}"
    )
    if pseudo.chooses_by_what_is_reported(dataset):
        print(
            f"The unseen classes of {dataset} are those that tables report: choose nothing by "
            "these figures, but on a held-out view."
        )
    return 0
