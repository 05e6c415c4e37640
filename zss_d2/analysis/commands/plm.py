"""What pixel learning (PLM of CLIP-ZSS) makes of training images, and how pure its regions are.

    zss plm --config-file configs/clip_zss_mini.yaml --images 6 \\
        --output plm.png MODEL.CLIP_ZSS.FUSION_THRESHOLD 0.9

Columns: image, full ground truth, clusters for every window size, fused regions, F. A region's
purity is the share of its most frequent class, unseen ones included, among its labelled pixels. It
is a diagnostic: training sees neither the purity nor the unseen labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.analysis.commands.pictures import add_picture_options, check_picture, write_picture
from zss_d2.errors import command
from zss_d2.utils.command_line import Parser, whole


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, type=Path, metavar="CONFIG")
    add_picture_options(parser, images=6, output="plm.png")
    parser.add_argument(
        "--measure", type=whole(1), default=100, metavar="N", help="images for the mean purity"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_intermixed_args(argv)
    check_picture(args.output)

    from zss_d2.analysis import plm
    from zss_d2.analysis.device import config_for_this_machine

    cfg = config_for_this_machine(args.config_file, args.opts)
    panels = plm.examine(cfg, max(args.images, args.measure))
    total = plm.total_purity([panel.purity for panel in panels])
    print(
        f"{len(panels)} images: {total.regions / len(panels):.1f} regions each, "
        f"{total.value:.1f} % pure, "
        f"{100 * (1 - total.labelled / max(total.pixels, 1)):.1f} % of the pseudo pixels are void"
    )
    write_picture(args.output, plm.draw(panels[: args.images], cfg))
    return 0
