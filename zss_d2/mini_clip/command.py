"""Pretrains the mini CLIP on captions of generated scenes.

    zss mini-clip --seed 0 --output seed0.safetensors

No mask is used. Most patches are dropped while training, as in FLIP (arXiv 2212.00794), which saves
more than half of the time. The same command continues a run that was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import command
from zss_d2.mini_clip.recipe import Recipe
from zss_d2.utils.command_line import MAX_COUNT, MAX_SEED, Parser, check_output, whole
from zss_d2.utils.cores import cpu_cores


def make_parser() -> Parser:
    default = Recipe()
    parser = Parser(__doc__)

    def number(option: str, low: int, value: int, text: str, high: int = MAX_COUNT) -> None:
        parser.add_argument(
            option, type=whole(low, high), default=value, metavar="N", help=f"{text} ({value})"
        )

    number("--seed", 0, default.seed, "of everything random", MAX_SEED)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the .safetensors to write"
    )
    number("--steps", 1, default.steps, "of training")
    number("--batch", 1, default.batch, "scenes a step")
    number("--scenes", 1, default.scenes, "to draw")
    number("--workers", 1, len(cpu_cores()), "processes that draw")
    number("--probe-period", 0, 250, "steps; 0: only at the end")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = make_parser().parse_args(argv)
    check_output(args.output)

    from zss_d2.mini_clip.pretrain import pretrain

    recipe = Recipe(seed=args.seed, steps=args.steps, batch=args.batch, scenes=args.scenes)
    pretrain(recipe, args.output, workers=args.workers, probe_period=args.probe_period)
    return 0
