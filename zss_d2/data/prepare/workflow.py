"""The command line that the scripts in ``datasets/`` share; each only knows where originals lie."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from zss_d2.data.files.lists import read_id_list
from zss_d2.data.prepare.convert import Pair, prepare_split
from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.outcome import Outcome, print_outcomes
from zss_d2.data.prepare.verify import check_location, check_split
from zss_d2.data.spec.benchmark import Benchmark
from zss_d2.data.spec.locations import prepared_location, prepared_root
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser

__all__ = [
    "Pair",
    "add_common_arguments",
    "benchmark_choice",
    "check_split",
    "main",
    "read_id_list",
]


def benchmark_choice(names: Sequence[str], differences: str) -> Parser:
    """``--benchmark``, the first one by default: read before the defaults that depend on it.

    A parent of a script's whole parser.
    """
    choice = Parser(None, add_help=False, allow_abbrev=False)
    choice.add_argument(
        "--benchmark",
        choices=names,
        default=names[0],
        help=f"{differences} (default: %(default)s). Scores of the two cannot be compared",
    )
    return choice


def add_common_arguments(parser: Parser, benchmark: Benchmark) -> None:
    """Add the options that every ``datasets/prepare_*.py`` has."""
    add_output_arguments(parser, benchmark)
    parser.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking to the originals"
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="go on with the listed images that are there (scores are then not comparable)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check",
        action="store_true",
        help="write nothing; verify the counts, lists, pairs, sizes and mask values of --output, "
        "and show the pixels per class",
    )
    action.add_argument(
        "--dry-run", action="store_true", help="write nothing; say what would be written"
    )
    parser.add_argument(
        "--compare-originals",
        action="store_true",
        help="with --check: read the originals too; the pixels per class must agree exactly",
    )


def add_output_arguments(parser: Parser, benchmark: Benchmark) -> None:
    """Add ``--output`` and ``--workers``."""
    parser.add_argument(
        "--output",
        type=Path,
        default=prepared_root(benchmark),
        metavar="DIR",
        help="folder to write images/SPLIT and annotations/SPLIT to "
        f"(default: $DETECTRON2_DATASETS/zss/{benchmark.name}, now %(default)s)",
    )
    parser.add_workers()


@data_command
def main(
    benchmark: Benchmark,
    args: argparse.Namespace,
    list_pairs: Callable[[], Mapping[str, list[Pair]]],
    *,
    custom_lists: bool = False,
    lut: np.ndarray | None = None,
) -> int:
    """Prepare or check all splits, print what happened, and return the exit status.

    Args:
        args: holds the options of `add_common_arguments`.
        list_pairs: gives {split name: pairs}. A check goes on without if the originals are gone.
        custom_lists: the user chose other lists, so counts may differ from the benchmark's.
        lut: of the masks, where they are not in the benchmark's first encoding.

    Returns:
        0, or 2 after one line per problem on the error stream; 130 or 143 if a signal stops it.
    """
    lut = benchmark.lut if lut is None else lut
    if args.check:
        lenient = custom_lists or args.skip_missing
        outcomes = _check(benchmark, args, list_pairs, lenient, lut, custom_lists)
    else:
        outcomes = [
            prepare_split(
                benchmark.splits[name],
                pairs,
                args.output,
                lut,
                workers=args.workers,
                copy=args.copy,
                skip_missing=args.skip_missing,
                dry_run=args.dry_run,
            )
            for name, pairs in list_pairs().items()
        ]
    return _finish(outcomes, args)


def _check(
    benchmark: Benchmark,
    args: argparse.Namespace,
    list_pairs: Callable[[], Mapping[str, list[Pair]]],
    lenient: bool,
    lut: np.ndarray,
    custom_lists: bool,
) -> list[Outcome]:
    try:
        pairs = dict(list_pairs())
    except ZssError as error:
        # A list that somebody names is to be there.
        if args.compare_originals or custom_lists:
            raise
        print(f"note: list membership is not checked: {error}")
        pairs = {}
    return [
        check_location(
            benchmark,
            split,
            prepared_location(benchmark, split, args.output),
            workers=args.workers,
            any_count=lenient,
            listed=_listed(pairs.get(split.name), args.skip_missing),
            originals=pairs.get(split.name, ()) if args.compare_originals else (),
            lut=lut,
        )
        for split in benchmark.splits.values()
    ]


def _listed(pairs: list[Pair] | None, skip_missing: bool) -> Collection[str] | None:
    if pairs is None:
        return None
    there = (p for p in pairs if not skip_missing or (p.image.exists() and p.mask.exists()))
    return [pair.image_id for pair in there]


def _finish(outcomes: list[Outcome], args: argparse.Namespace) -> int:
    failed = print_outcomes(outcomes)
    if failed:
        print(
            f"{failed} problem(s) in all; fix them and run the same command again: what is good "
            "stays prepared",
            file=sys.stderr,
        )
        return 2
    if not args.dry_run:
        print(f"{args.output} is ready")
    return 0
