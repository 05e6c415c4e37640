"""Says what is wrong with the data of a training config, a benchmark or a custom dataset.

    zss check ldvc_voc
    zss check voc
    zss check my_data.yaml

Nothing is written. Exit status 2 and one line per problem if something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from zss_d2.data.prepare.data_command import data_command
from zss_d2.utils.command_line import Parser


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="zss check")
    parser.add_argument(
        "subject", metavar="CONFIG_OR_SPEC", help="a yaml, or the name of a config or a benchmark"
    )
    parser.add_workers()
    return parser


@data_command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)

    from zss_d2.data.prepare.check import check_targets, find_targets

    targets, notes = find_targets(args.subject)
    for note in notes:
        print(f"note: {note}")
    failed = check_targets(targets, args.workers)
    print(f"{failed} problem(s)" if failed else "everything is in order")
    return 2 if failed else 0
