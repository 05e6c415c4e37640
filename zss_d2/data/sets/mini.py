"""Generate the mini world for zss_mini_train, zss_mini_dev and zss_mini_val."""

from __future__ import annotations

import argparse
import sys

from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.workflow import add_output_arguments, check_split
from zss_d2.data.spec.benchmark import Benchmark, load_benchmark
from zss_d2.data.synthetic.mini.write import claim_folder, write_split
from zss_d2.utils.command_line import Parser, whole


def parse_args(benchmark: Benchmark, argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        "Draw the scenes of the mini world (docs/mini.md) and their masks. Nothing is downloaded. "
        "Running it again continues where it stopped.",
        formatter_class=argparse.HelpFormatter,
    )
    for split in benchmark.splits.values():
        parser.add_argument(
            f"--{split.name}",
            type=whole(0),
            default=split.expected_images,
            metavar="N",
            help=f"scenes in zss_mini_{split.name} (default: %(default)s)",
        )
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="of the world (default: %(default)s)"
    )
    add_output_arguments(parser, benchmark)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; verify the counts, pairs, sizes and mask values of --output",
    )
    return parser.parse_args(argv)


@data_command
def run(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns 0, or 2 after a line per problem."""
    benchmark = load_benchmark("mini")
    args = parse_args(benchmark, argv)
    problems = check(benchmark, args) if args.check else generate(benchmark, args)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 2 if problems else 0


def generate(benchmark: Benchmark, args: argparse.Namespace) -> list[str]:
    claim_folder(args.output, args.seed)
    for split in benchmark.splits.values():
        summary, notes = write_split(
            split,
            getattr(args, split.name),
            args.output,
            seed=args.seed,
            workers=args.workers,
        )
        for line in (*notes, summary):
            print(line)
    print(f"{args.output} is ready")
    return []


def check(benchmark: Benchmark, args: argparse.Namespace) -> list[str]:
    problems = []
    for split in benchmark.splits.values():
        wanted = getattr(args, split.name)
        outcome = check_split(
            benchmark,
            split,
            args.output,
            workers=args.workers,
            any_count=wanted != split.expected_images,
        )
        problems += outcome.problems
        print(outcome.summary)
    return problems
