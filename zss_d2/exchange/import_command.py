"""Convert a released checkpoint to a folder that this project loads.

    zss import zegclip iter_20000.pth --output zegclip-voc
    zss import zegclip st.pth --setting transductive --output zegclip-voc-st
    python train_net.py --eval-only --config-file zegclip-voc/config.yaml

Formats: zegclip, a checkpoint of MMSegmentation of ZegCLIP's released code. CLIP's weights are in
the file. What it does not tell by itself has to be said. No code of the file runs.
docs/reproduce.md has the published figures and where the files are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, check_output

BENCHMARKS = ("voc", "coco_stuff", "context59", "context60")
SETTINGS = ("inductive", "transductive", "supervised")


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("format", choices=("zegclip",), help="whose checkpoint it is")
    parser.add_argument("file", type=Path, metavar="PTH", help="the checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--benchmark", choices=BENCHMARKS, help="that it was trained on (default: as it tells)"
    )
    parser.add_argument(
        "--setting",
        choices=SETTINGS,
        help="that it was trained in (default: as it tells, by the config that it quotes or its "
        "number of classes)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the model that the folder holds"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output, folder=True)

    from zss_d2.exchange.zegclip import convert
    from zss_d2.predict.pretrained import require_room, save_pretrained

    require_room(args.output, args.overwrite)
    predictor, origin = convert(args.file, args.benchmark, args.setting)
    save_pretrained(predictor, args.output, overwrite=args.overwrite, origin=origin)
    print(
        f"written: {args.output}; evaluate it with\n  python train_net.py --eval-only "
        f"--config-file {args.output / 'config.yaml'}"
    )
    return 0
