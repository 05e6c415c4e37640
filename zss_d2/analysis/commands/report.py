"""Results of one or several runs as one page: numbers, figures, pictures, provenance.

    zss report output/maskclip_mini output/ldvc_mini --output output/report

Writes ``report.html``, which needs no other file, and ``report.md`` with its pictures. A run is a
folder that ``train_net.py`` has written. Pictures of predictions appear where the runs were tested
with ``TEST.PREDICTIONS png``. The first run is the one that others are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_runs()
    parser.add_argument("--output", type=Path, default=Path("output/report"), metavar="DIR")
    parser.add_argument(
        "--resamples", type=whole(1), default=1000, metavar="N", help="for the intervals"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.analysis.report.content import page
    from zss_d2.analysis.report.document import write_document
    from zss_d2.analysis.run_folder import finished_runs

    write_document(page(finished_runs(args.runs), args.resamples), args.output)
    print(f"report written to {args.output / 'report.html'}")
    return 0
