"""What commands that write one picture have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser, check_output, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A picture with more rows could not be drawn in one piece.
MAX_IMAGES = 100
# Those of Matplotlib that need no other program.
SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def add_picture_options(parser: Parser, *, images: int, output: str) -> None:
    """``--images`` and ``--output``, with these defaults."""
    parser.add_argument(
        "--images", type=whole(1, MAX_IMAGES), default=images, metavar="N", help="rows to show"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="FILE",
        help=f"its suffix says the format: {' '.join(SUFFIXES)}",
    )


def check_picture(path: Path) -> None:
    """Raise `ZssError` where no picture could be written to ``path``, or in no such format."""
    check_output(path)
    if path.suffix.lower() not in SUFFIXES:
        what = f"{path.suffix} is no format of pictures" if path.suffix else "the suffix is missing"
        raise ZssError(f"--output {path}: {what}; end it in one of {', '.join(SUFFIXES)}")


def runs_parser(description: str | None, *, images: int, output: str) -> Parser:
    """The command line of a picture of runs; ``images`` and ``output`` are its defaults."""
    parser = Parser(description)
    parser.add_runs()
    add_picture_options(parser, images=images, output=output)
    parser.add_opts()
    return parser


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure in the format that the suffix names, and say so."""
    from zss_d2.drawing.figures import encode
    from zss_d2.utils.writing import write_atomic

    content = encode(figure, path.suffix.lower().removeprefix("."))
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    print(f"picture written to {path}")
