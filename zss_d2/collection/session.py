"""A run of ``zss predict``: from the command line to a folder of results."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from typing import Any

from zss_d2.api import load_model
from zss_d2.collection.inputs import find_images
from zss_d2.collection.ranks import Ranks, device_of, join
from zss_d2.collection.state.folder import OutputFolder
from zss_d2.collection.state.identity import describe
from zss_d2.collection.state.journal import Journal
from zss_d2.collection.state.resume import find_missing, settled
from zss_d2.collection.work import pipeline
from zss_d2.collection.work.batches import planned
from zss_d2.collection.work.images import ImageWork, Job
from zss_d2.collection.work.plan import chunks, share
from zss_d2.collection.work.progress import Progress
from zss_d2.engine.output_folder import claim
from zss_d2.engine.processes import interrupt
from zss_d2.predict.formats import collection_formats, image_formats
from zss_d2.predict.options import Options
from zss_d2.predict.predictor import Predictor
from zss_d2.predict.words import Words
from zss_d2.utils.cores import cpu_cores
from zss_d2.utils.signals import name_of

# Threads that read, and as many that write, at most.
MAX_THREADS = 8


def run(args: argparse.Namespace, words: Words, options: Options) -> int:
    """Label what the command line names; returns the exit status, 1 if an image failed.

    Raises:
        ZssError: a mistake in the command line or in what it names; nothing can be written.
    """
    ranks = Ranks()
    try:
        with interrupt.listening():
            ranks = join()
            return _run(args, words, options, ranks)
    except interrupt.Interrupted as stopped:
        if ranks.rank == 0:
            print(
                f"stopped by {name_of(stopped.signum)}; what is done stays done, the same command "
                "goes on",
                file=sys.stderr,
            )
        return int(stopped.code)


def _run(args: argparse.Namespace, words: Words, options: Options, ranks: Ranks) -> int:
    start = time.monotonic()
    folder = OutputFolder(args.output)
    ranks.first(folder.require_own)
    inputs = ranks.first(lambda: find_images(args.images, args.output))
    predictor = ranks.each(lambda: _load(args, ranks))
    ranks.each(lambda: predictor.check(words, options))
    joint = collection_formats(args.formats)
    drawing = {"opacity": args.opacity, "legend": args.legend}
    own_options = {**drawing, "large": args.large}
    masks = any(form.needs_masks for form in joint.values())
    job = Job(words, options, args.output, image_formats(args.formats), masks, drawing)
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(claim(args.output, "--output")))
        config = str(args.config_file)
        identity = ranks.first(lambda: describe(predictor, config, words, options, own_options))
        number = ranks.first(lambda: folder.begin(identity))
        records = folder.records()
        images = ranks.each(lambda: settled(inputs.images, records, args.output))
        pieces = share(chunks(len(images), options.batch), ranks.rank, ranks.world)
        own = [[images[position] for position in piece] for piece in pieces]
        missing = find_missing(own, records, job)
        changed = ranks.total(len(missing.changed))
        if ranks.rank == 0:
            _say(inputs.notes, changed)
        journal = Journal(folder.journal(number, ranks.rank))
        progress = Progress(
            sum(map(len, own)), len(missing.names), ranks.world, shown=ranks.rank == 0
        )
        work = ImageWork(predictor, job, journal, progress)
        threads = max(1, min(MAX_THREADS, len(cpu_cores()) // ranks.local_world))
        large = round(args.large * 1e6)
        try:
            batches = planned(own, missing.names, predictor, options, large, threads)
            pipeline.run(batches, work, threads)
        finally:
            progress.close()
            journal.close()
        counts = {
            "labelled": ranks.total(progress.done),
            "failed": ranks.total(progress.failed),
            "processes": ranks.world,
            "seconds": round(time.monotonic() - start, 1),
        }
        names = {image.name for image in images}
        ranks.first(lambda: folder.finish(identity, counts, words, joint, names))
    if ranks.rank == 0:
        _summarise(args.output, len(images), counts)
    return 1 if counts["failed"] else 0


def _load(args: argparse.Namespace, ranks: Ranks) -> Predictor:
    return load_model(args.config_file, args.weights, device_of(args.device, ranks), args.opts)


def _say(notes: list[str], changed: int) -> None:
    if changed:
        notes = [*notes, f"{changed} images have changed since, and are labelled again"]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _summarise(output: Any, images: int, counts: dict[str, Any]) -> None:
    before = images - counts["labelled"] - counts["failed"]
    parts = [f"{counts['labelled']} of {images} images labelled in {counts['seconds']:g} s"]
    parts += [f"{before} were there"] if before else []
    print(f"{output}: {', '.join(parts)}")
    if counts["failed"]:
        print(
            f"failed: {counts['failed']} of {images} images, see {output / 'predict.json'}; the "
            "same command tries them again",
            file=sys.stderr,
        )
