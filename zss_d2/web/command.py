"""A page in the browser that labels images with words.

    zss web                               # runs below output/, MaskCLIP of the mini world
    zss web output/demo/ldvc_mini/seed0   # runs with their last checkpoints
    zss web --config-file configs/ldvc_mini.yaml --weights model_final.pth

Only this machine reaches it, unless --host says otherwise; there is no password. Needs
`pip install zss_d2[web]`; works without a network.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from zss_d2.errors import ZssError, command
from zss_d2.utils.command_line import Parser, between, whole
from zss_d2.utils.signals import handled_by
from zss_d2.web.server import is_local, open_port, serve, use_folder

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor
    from zss_d2.web.models import Models

# What `pip install zss_d2[web]` brings, and what goes with it.
_EXTRA = ("gradio", "fastapi", "uvicorn")


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN_FOLDER",
        help="models to offer; without any, and without --config-file, the runs below output/ and "
        "configs/maskclip_mini.yaml",
    )
    parser.add_argument("--config-file", type=Path, metavar="FILE", help="a model to offer first")
    parser.add_argument("--weights", metavar="CHECKPOINT", help="of --config-file")
    parser.add_argument(
        "--device", default="auto", help="auto (the default), cpu, mps, cuda, or one GPU: cuda:0"
    )
    parser.add_argument("--port", type=whole(1, 65535), default=7860, help="default: 7860")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1"
    )
    parser.add_argument(
        "--max-mb",
        type=between(0.001, 2000),
        default=20,
        metavar="MIB",
        help="largest file that can be uploaded; default: 20",
    )
    parser.add_argument(
        "--max-megapixels",
        type=between(0.001, 1000),
        default=40,
        metavar="N",
        help="largest image; default: 40",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, until Ctrl-C; returns the exit status."""
    args = make_parser().parse_args(argv)
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        raise ZssError(
            f"zss web needs {missing[0]}, which is not installed; pip install zss_d2[web]"
        )
    with (
        handled_by(_end, (signal.SIGTERM,)),
        open_port(args.host, args.port) as listening,
        tempfile.TemporaryDirectory(prefix="zss_web_") as name,
    ):
        folder = Path(name).resolve()
        use_folder(folder)
        models = _models(args)
        from zss_d2.web import examples, page

        drawn = examples.draw_examples(folder)
        built = page.build(models, drawn, folder, args.max_megapixels)
        _announce(args.host, args.port)
        serve(built, listening, args.host, folder, most_bytes=round(args.max_mb * 2**20))
    return 0


def _models(args: argparse.Namespace) -> Models:
    from zss_d2.api import load_model
    from zss_d2.web.models import Choice, Models, choices_at_hand, given_choices

    def load(choice: Choice) -> Predictor:
        # A choice is called as its config.
        return load_model(choice.config, choice.weights, args.device, training_free=False)

    if given := given_choices(args.config_file, args.weights, args.runs):
        models = Models(given, load)
        models.load_all()
    else:
        models = Models(choices_at_hand(Path("output")), load)
        models.drop_unloadable()
    return models


def _announce(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port} (Ctrl-C ends it)", flush=True)
    if not is_local(host):
        print(
            f"note: whoever reaches port {port} of this machine can use the page; no password",
            file=sys.stderr,
        )


def _end(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
