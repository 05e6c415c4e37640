"""Run configs over seeds and variants, and print one table with mean and standard deviation.

    zss sweep configs/maskclip_mini.yaml configs/ldvc_mini.yaml \\
        --seeds 0 1 2 --vary MODEL.CLIP.PRETRAINED seed0 seed1 --output output/sweep

Every run has a folder of its own below the output folder. A run that is finished under the same
configuration is not repeated, one that was interrupted goes on from its last checkpoint; so the
same command can be given again at any time. ``--opts KEY VALUE`` apply to all runs. The table holds
all finished runs of the output folder, those of earlier commands too.

A run that fails does not keep the others from running. It is named in the table, with the reason,
and the exit status is 1; the same command tries it again. ``--jobs N`` runs N at once, each on
GPUs (of CUDA_VISIBLE_DEVICES, if set) and CPU cores of its own. SIGTERM and Ctrl-C let running
trainings save a checkpoint; a second one kills them.

To choose between settings without looking at the unseen classes that are reported, run them on
views in which seen classes are held out (datasets/README.md, "Choosing settings"); the first table
then has the mean over the views:

    zss sweep configs/ldvc_mini.yaml configs/zegclip_mini.yaml \\
        --views datasets/mini_heldout*.yaml --opts DATASETS.TEST '("zss_mini_dev",)'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import MAX_SEED, Parser, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="yaml files; one row each")
    parser.add_argument("--seeds", nargs="+", type=whole(0, MAX_SEED), default=[0], metavar="N")
    parser.add_argument(
        "--vary",
        nargs="+",
        metavar=("KEY", "VALUE"),
        help="a config key and the values to run each config with",
    )
    parser.add_argument(
        "--views", nargs="+", default=[], metavar="YAML", help="held-out views to run on instead"
    )
    parser.add_argument("--output", type=Path, default=Path("output/sweep"), metavar="DIR")
    parser.add_argument("--jobs", type=whole(1), default=1, metavar="N", help="runs at once")
    parser.add_argument(
        "--num-gpus", type=whole(1), default=1, metavar="N", help="per run; processes on a CPU"
    )
    parser.add_opts()
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.vary is not None and len(args.vary) < 2:
        parser.error("--vary needs a key and at least one value")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.sweep.session import run_sweep

    return run_sweep(args)
