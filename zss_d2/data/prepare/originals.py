"""Looks at benchmarks whose originals are read as they are; nothing is converted or written."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from zss_d2.data.files.listing import load_records
from zss_d2.data.prepare.outcome import Outcome, count_notes, print_outcomes
from zss_d2.data.prepare.verify import check_location
from zss_d2.data.spec.benchmark import Benchmark, Split, load_benchmark
from zss_d2.data.spec.locations import dataset_name, datasets_root, prepared_location
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser
from zss_d2.utils.sampling import evenly_spaced

# Pairs of each split that are read without --check.
SAMPLE = 32


def examine(name: str, source: str, argv: Sequence[str] | None = None) -> int:
    """Do what the command line of a ``datasets/prepare_<name>.py`` says.

    Args:
        name: of the benchmark.
        source: what to get from where, for those who lack it.

    Returns:
        0, or 2 after one line per problem on the error stream.
    """
    benchmark = load_benchmark(name)
    args = _parse(benchmark, argv)
    chosen = [benchmark.splits[split] for split in args.split or benchmark.splits]
    outcomes = (look_at(benchmark, split, source, args.workers, args.check) for split in chosen)
    if print_outcomes(outcomes):
        return 2
    sets = ", ".join(dataset_name(benchmark, split) for split in chosen)
    rest = "" if args.check else f"; {SAMPLE} pairs of each were read, --check reads all"
    print(f"{sets}: ready, there is nothing to convert{rest}")
    return 0


def look_at(
    benchmark: Benchmark, split: Split, source: str, workers: int = 1, everything: bool = False
) -> Outcome:
    """Verify names, pairs and the number of images of a split, and what some of its files hold.

    Args:
        source: the remedy where files are missing.
        everything: read all pairs, and not only `SAMPLE` of them, evenly spread.
    """
    location = dataclasses.replace(prepared_location(benchmark, split), remedy=source)
    try:
        records = load_records(location, dataset_name(benchmark, split))
    except ZssError as error:
        return Outcome(f"{split.name}: not usable", (f"{split.name}: {error}",))
    ids = [record["image_id"] for record in records]
    if not everything:
        few = tuple(ids[index] for index in evenly_spaced(len(ids), SAMPLE))
        location = dataclasses.replace(location, ids=few)
    wrong = [f"{note}; {source}" for note in count_notes(split, len(ids), "the folder holds")]
    any_number = dataclasses.replace(split, expected_images=None)
    outcome = check_location(benchmark, any_number, location, workers=workers)
    table = outcome.table if everything else ""
    return dataclasses.replace(outcome, problems=(*wrong, *outcome.problems), table=table)


def _parse(benchmark: Benchmark, argv: Sequence[str] | None) -> argparse.Namespace:
    folders = " and ".join(
        sorted({f"{split.place.images.split('/')[0]}" for split in benchmark.splits.values()})
    )
    parser = Parser(
        f"Look whether {benchmark.title.split(',')[0]} lies where it is read from, "
        f"$DETECTRON2_DATASETS/{folders} (now below {datasets_root()}): folders, names, pairs, the "
        f"number of images, and what {SAMPLE} pairs of each split hold. Masks are translated when "
        "they are read, so nothing is converted or written. Exit status 2 and one line per problem "
        "if something is missing or wrong.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read all images and masks, and show the pixels per class",
    )
    parser.add_argument(
        "--split",
        action="append",
        choices=list(benchmark.splits),
        help="look at this one only; may be repeated (default: all)",
    )
    parser.add_workers()
    return parser.parse_args(argv)
