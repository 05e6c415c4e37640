"""From command-line arguments to running processes, with errors a user can act on."""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, default_argument_parser, launch
from detectron2.utils import comm
from torch import distributed as dist

from zss_d2.data.spec.custom import register_custom
from zss_d2.engine.config_file import check_arguments, check_device, load_config
from zss_d2.engine.output_folder import claim
from zss_d2.engine.processes import interrupt
from zss_d2.engine.processes.failures import as_user_error, last_words
from zss_d2.engine.resume import require_folder_for_training
from zss_d2.errors import ZssError
from zss_d2.utils.cores import cpu_cores

Main = Callable[[CfgNode, argparse.Namespace], object]

# How long processes may go on after one of them has failed.
LAST_SECONDS = 10.0
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Detectron2's, with a port that is free unless one is given, and this project's switches."""
    parser = default_argument_parser(epilog)
    parser.set_defaults(dist_url="auto")
    # One line instead of the whole usage.
    parser.error = lambda text: parser.exit(2, f"error: {text}; --help lists all options\n")
    add = parser.add_argument
    add(
        "--overwrite",
        action="store_true",
        help="train anew in an OUTPUT_DIR that holds checkpoints, which are removed",
    )
    add(
        "--allow-changes",
        action="store_true",
        help="resume although settings differ that make it another run",
    )
    add(
        "--oversubscribe",
        action="store_true",
        help="run more processes than there are CPU cores",
    )
    add(
        "--timeout",
        type=float,
        default=30.0,
        metavar="MINUTES",
        help="how long processes wait for each other (default: 30)",
    )
    return parser


def check_devices(cfg: CfgNode, processes: int, oversubscribe: bool = False) -> None:
    """Raise `ZssError` if this machine cannot run ``processes`` processes on ``MODEL.DEVICE``.

    Args:
        oversubscribe: let processes on a CPU share cores.
    """
    check_device(cfg.MODEL.DEVICE, processes)
    if cfg.MODEL.DEVICE.startswith("cuda"):
        gpus = torch.cuda.device_count()
        if processes > gpus:
            raise ZssError(
                f"--num-gpus {processes}: MODEL.DEVICE is {cfg.MODEL.DEVICE} and this machine has "
                f"{gpus} GPUs; use at most --num-gpus {gpus}"
            )
        return
    cores = len(cpu_cores())
    if processes > cores and not oversubscribe:
        raise ZssError(
            f"--num-gpus {processes}: MODEL.DEVICE is {cfg.MODEL.DEVICE} and this machine has "
            f"only {cores} CPU cores; use at most --num-gpus {cores}, or --oversubscribe"
        )


def check_switches(args: argparse.Namespace) -> None:
    """Raise `ZssError` for switches of `argument_parser` that would have no effect, or no sense."""
    for flag, useless, effect in (
        ("--allow-changes", args.allow_changes and not args.resume, "--resume"),
        ("--overwrite", args.overwrite and args.eval_only, "a training"),
    ):
        if useless:
            raise ZssError(f"{flag} has an effect with {effect} only; leave it out")
    if not 0 < args.timeout < math.inf:
        raise ZssError(f"--timeout is {args.timeout:g}; give minutes, more than 0")


def check_meeting_point(args: argparse.Namespace) -> None:
    """Raise `ZssError` if the processes cannot meet at ``--dist-url``."""
    if args.num_machines * args.num_gpus == 1 or args.dist_url == "auto":
        return
    try:
        url = urlsplit(args.dist_url)
        host, port = url.hostname, url.port
    except ValueError:
        url, host, port = urlsplit(""), None, None
    if url.scheme in ("file", "env"):
        return
    if url.scheme != "tcp" or not host or not port:
        raise ZssError(f"--dist-url is {args.dist_url!r}; give tcp://HOST:PORT, a port below 65536")
    if args.machine_rank > 0:
        return
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ZssError(
            f"--dist-url {args.dist_url}: {os.strerror(error.errno or 0)}; another run may be "
            "using it: give another port, or auto on a single machine"
        ) from None


def under_torchrun() -> bool:
    """Whether ``torchrun`` has started this process as one of a run."""
    return all(name in os.environ for name in _TORCHRUN)


def run(main: Main, args: argparse.Namespace) -> None:
    """Run ``main(cfg, args)`` in every process of the job, and see to it that it ends well.

    The processes are those that ``torchrun`` has started, or else ``--num-gpus`` of them on each of
    ``--num-machines``. The run has its OUTPUT_DIR to itself. An error of the user's, in whichever
    process, ends with one line and exit status 2, another failure of a process with status 1, a
    signal with 128 + its number.
    """
    folder = Path()
    try:
        with interrupt.listening():
            check_arguments(args)
            check_switches(args)
            cfg = load_config(args.config_file, args.opts)
            folder = Path(cfg.OUTPUT_DIR)
            (_run_under_torchrun if under_torchrun() else _launch)(main, cfg, args)
    except (Exception, interrupt.Interrupted) as error:
        line, status = last_words(error, folder)
        if not line:
            raise
        print(line, file=sys.stderr)
        sys.exit(status)


def _launch(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    check_devices(cfg, args.num_gpus, args.oversubscribe)
    check_meeting_point(args)
    several = args.num_gpus * args.num_machines > 1
    if args.machine_rank == 0:
        _check_folder(cfg, args, args.num_gpus * args.num_machines)
    with _watching() if several else nullcontext():
        launch(
            _start_spawned if several else _start,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, cfg, args),
            timeout=timedelta(minutes=args.timeout),
        )


def _run_under_torchrun(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    given = args.num_gpus, args.num_machines, args.machine_rank, args.dist_url
    if given != (1, 1, 0, "auto"):
        raise ZssError(
            "torchrun says how many processes and machines there are and where they meet; leave "
            "out --num-gpus, --num-machines, --machine-rank and --dist-url"
        )
    check_devices(cfg, here, args.oversubscribe)
    # A run that torchrun starts again after a failure goes on.
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        args.resume, args.overwrite = True, False
    args.num_gpus = here  # what `_start` shares the cores by
    interrupt.end_with_parent()
    if rank == 0:
        _check_folder(cfg, args, processes)
    if processes == 1:
        _start(main, cfg, args)
        return
    on_gpu = torch.cuda.is_available()
    join_torchrun("nccl" if on_gpu else "gloo", timedelta(minutes=args.timeout))
    comm.create_local_process_group(here)
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    comm.synchronize()
    _start(main, cfg, args)
    dist.destroy_process_group()


def join_torchrun(backend: str, timeout: timedelta) -> None:
    """Meet the other processes that ``torchrun`` has started, as a group of that backend."""
    store, rank, processes = next(dist.rendezvous("env://"))
    # Started again, processes must not find the addresses that dead ones have left in the store.
    prefix = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(prefix, store),
        rank=rank,
        world_size=processes,
        timeout=timeout,
    )


def _check_folder(cfg: CfgNode, args: argparse.Namespace, processes: int) -> None:
    """Nobody else uses OUTPUT_DIR, and training does not spoil what it holds."""
    with claim(Path(cfg.OUTPUT_DIR)):
        if not args.eval_only and cfg.SOLVER.MAX_ITER > 0:
            require_folder_for_training(
                DefaultTrainer.auto_scale_workers(cfg, processes),
                resume=args.resume,
                overwrite=args.overwrite,
                allow_changes=args.allow_changes,
            )


def _start(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    """One process of the run; processes on a CPU share its cores instead of fighting for them.

    A spawned process starts with the built-in data sets only, so the custom ones are registered.
    """
    register_custom(cfg.DATASETS.CUSTOM)
    if args.num_gpus > 1 and cfg.MODEL.DEVICE == "cpu":
        torch.set_num_threads(max(1, len(cpu_cores()) // args.num_gpus))
    try:
        # Whoever writes has the lock: a launcher may be killed before its processes.
        with claim(Path(cfg.OUTPUT_DIR)) if comm.is_main_process() else nullcontext():
            main(cfg, args)
    except Exception as error:
        known = as_user_error(error, Path(cfg.OUTPUT_DIR))
        # By its name, of no subclass, the launcher knows it in a traceback.
        if known is None or type(error) is ZssError:
            raise
        raise ZssError(str(known)) from error


def _start_spawned(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    with interrupt.listening():
        _start(main, cfg, args)


def _children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


@contextmanager
def _watching() -> Iterator[None]:
    """Signals go on to the processes; those that wait for one that has failed are ended."""
    over = threading.Event()
    # That it ends the others is no news.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    if hasattr(os, "waitid"):
        threading.Thread(target=_kill_after_failure, args=(over,), daemon=True).start()
    try:
        with interrupt.handing_on(_children):
            yield
    finally:
        over.set()


def _kill_after_failure(over: threading.Event) -> None:
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not over.wait(0.5):
        try:
            ended = os.waitid(os.P_ALL, 0, look)
        except ChildProcessError:
            continue
        failed = ended is not None and ended.si_status not in (0, *interrupt.EXIT_STATUSES)
        if failed and not over.wait(LAST_SECONDS):
            for process in multiprocessing.active_children():
                process.kill()
            return
