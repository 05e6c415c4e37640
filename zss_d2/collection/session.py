"""A run of ``zss predict``: from the command line to a folder of results."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombWarning

from zss_d2.api import load_model
from zss_d2.collection.inputs import Image, find_images
from zss_d2.collection.ranks import Ranks, device_of, join, lost_contact
from zss_d2.collection.sheet import write_sheet
from zss_d2.collection.state.folder import OutputFolder
from zss_d2.collection.state.identity import describe
from zss_d2.collection.state.journal import Journal, Records
from zss_d2.collection.state.resume import find_missing, settled, without_masks
from zss_d2.collection.work import pipeline
from zss_d2.collection.work.batches import planned
from zss_d2.collection.work.images import ImageWork, Job
from zss_d2.collection.work.plan import chunks, share
from zss_d2.collection.work.progress import Progress
from zss_d2.data.files.predictions import MANIFEST
from zss_d2.engine.output_folder import claim
from zss_d2.engine.processes import interrupt
from zss_d2.errors import ZssError
from zss_d2.predict.formats import collection_formats, image_formats
from zss_d2.predict.options import OPACITY, Options
from zss_d2.predict.predictor import Predictor
from zss_d2.predict.words import Words
from zss_d2.utils.cores import cpu_cores
from zss_d2.utils.signals import name_of
from zss_d2.utils.text import one_line

# Threads that read, and as many that write, at most.
MAX_THREADS = 8


def run(args: argparse.Namespace, words: Words, options: Options) -> int:
    """Label what the command line names; returns the exit status, 1 if an image failed.

    Raises:
        ZssError: a mistake in the command line or in what it names; nothing can be written.
    """
    # Pillow's, of what is read by windows instead, see `zss_d2.collection.raster.kinds`.
    warnings.simplefilter("ignore", DecompressionBombWarning)
    ranks = Ranks()
    try:
        with interrupt.listening():
            ranks = join()
            return _run(args, words, options, ranks)
    except interrupt.Interrupted as stopped:
        signum = stopped.signum
    except RuntimeError as error:
        # Of what the end of one process leads to in the others, a signal is the reason.
        if isinstance(error, ZssError) or not (lost := lost_contact(error)):
            raise
        signum = interrupt.requested()
        if signum is None:
            raise ZssError(f"{lost}; the same command goes on") from error
    if ranks.rank == 0:
        print(
            f"stopped by {name_of(signum)}; what is done stays done, the same command goes on",
            file=sys.stderr,
        )
    return 128 + signum


def _run(args: argparse.Namespace, words: Words, options: Options, ranks: Ranks) -> int:
    start = time.monotonic()
    folder = OutputFolder(args.output)
    ranks.first(folder.require_own)
    inputs = ranks.first(lambda: find_images(args.images, args.output))
    predictor = ranks.each(lambda: _load(args, ranks))
    options = replace(options, batch=predictor.batch(options))
    ranks.each(lambda: predictor.check(words, options))
    joint = collection_formats(args.formats)
    opacity = OPACITY if args.opacity is None else args.opacity
    drawing = {"opacity": opacity, "legend": args.legend}
    masks = any(form.needs_masks for form in joint.values())
    job = Job(words, options, args.output, image_formats(args.formats), masks, drawing)
    further = {**drawing, "large": args.large}
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(claim(args.output, "--output")))
        config = args.config_file or ""
        identity = ranks.first(lambda: describe(predictor, config, words, options, further))
        number = ranks.first(lambda: folder.begin(identity))
        records = folder.records()
        images = ranks.each(lambda: settled(inputs.images, records, args.output))
        if ranks.rank == 0:
            notes = [*inputs.notes, *_about_seen_bias(predictor, words, options)]
            _say(notes, without_masks(images, records) if masks else 0)
        journal = Journal(folder.journal(number, ranks.rank))
        large = round(args.large * 1e6)
        ready = time.monotonic()
        done, failed = _label_share(images, records, predictor, job, large, journal, ranks)
        counts = {
            "labelled": ranks.total(done),
            "failed": ranks.total(failed),
            "processes": ranks.world,
            "seconds": round(time.monotonic() - start, 2),
            "labelling_seconds": round(time.monotonic() - ready, 2),
        }
        names = {image.name for image in images}
        failure = ranks.first(lambda: folder.finish(identity, counts, words, joint, names))
        if args.sheet:
            ranks.first(lambda: write_sheet(folder, words, args.sheet, opacity))
    if ranks.rank == 0:
        _summarise(args.output, len(images), counts, failure)
    return 1 if counts["failed"] else 0


def _label_share(
    images: Sequence[Image],
    records: Records,
    predictor: Predictor,
    job: Job,
    large: int,
    journal: Journal,
    ranks: Ranks,
) -> tuple[int, int]:
    """Do this process's part of what is missing; returns how many images are done and failed."""
    pieces = share(chunks(len(images), job.options.batch), ranks.rank, ranks.world)
    own = [[images[position] for position in piece] for piece in pieces]
    missing = find_missing(own, records, job)
    changed = ranks.total(len(missing.changed))
    first = ranks.rank == 0
    progress = Progress(sum(map(len, own)), len(missing.names), ranks.world, shown=first)
    if changed:
        one = "1 image has changed since, and is labelled again"
        many = f"{changed} images have changed since, and are labelled again"
        progress.say(one if changed == 1 else many)
    work = ImageWork(predictor, job, journal, progress)
    threads = max(1, min(MAX_THREADS, len(cpu_cores()) // ranks.local_world))
    try:
        batches = planned(own, missing.names, predictor, job.options, large, threads)
        pipeline.run(batches, work, threads)
    finally:
        progress.close()
        journal.close()
    return progress.done, progress.failed


def _about_seen_bias(predictor: Predictor, words: Words, options: Options) -> list[str]:
    """What is to be said about a seen bias that nothing, or nothing trained, is lowered by."""
    model = predictor.segmentor
    lowered = [name for name in words.vocabulary if name in model.labelled_classes]
    if not options.seen_bias:
        return []
    if not lowered:
        none = "no word is called as a class that the model was trained on"
        return [f"--seen-bias has no effect: {none}"]
    if any(parameter.requires_grad for parameter in model.parameters()):
        return []
    return [
        f"--seen-bias lowers {', '.join(lowered)}, which the data set of the config calls seen; "
        "this method was trained on none"
    ]


def _load(args: argparse.Namespace, ranks: Ranks) -> Predictor:
    return load_model(args.config_file, args.weights, device_of(args.device, ranks), args.opts)


def _say(notes: Sequence[str], left_out: int) -> None:
    if left_out:
        them = "1 image of earlier runs has no mask, and is"
        if left_out > 1:
            them = f"{left_out} images of earlier runs have no masks, and are"
        rest = "left out of formats that need them; name these images too"
        notes = [*notes, f"{them} {rest}"]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _summarise(output: Path, images: int, counts: dict[str, Any], failure: str) -> None:
    before = images - counts["labelled"] - counts["failed"]
    parts = [f"{counts['labelled']} of {images} images labelled in {counts['seconds']:.1f} s"]
    parts += [f"{before} were there"] if before else []
    print(f"{output}: {', '.join(parts)}")
    if counts["failed"]:
        print(
            f"failed: {counts['failed']} of {images} images, such as {one_line(failure)} (all are "
            f"in {output / MANIFEST}; the same command tries them again)",
            file=sys.stderr,
        )
