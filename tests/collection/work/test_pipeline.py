"""Reading, labelling and writing at once."""

from __future__ import annotations

import threading
import time

import pytest

from zss_d2.collection.inputs import Image
from zss_d2.collection.work import pipeline
from zss_d2.collection.work.pipeline import Fatal, Member
from zss_d2.engine.processes import interrupt
from zss_d2.errors import ZssError
from zss_d2.utils.writing import WriteError


def member(name: str, wanted: bool = True, pixels: int = 1) -> Member:
    return Member(Image(f"/{name}", name, name), wanted, pixels, None)


class Recorder:
    """Work on names: results are upper case; what the name says goes wrong."""

    def __init__(self):
        self.batches, self.written, self.failed = [], {}, {}
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def read(self, image, kind):
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        if "unreadable" in image.name:
            raise ZssError("unreadable")
        return image.name

    def label(self, names):
        self.batches.append(list(names))
        for name in names:
            if "fatal" in name:
                raise Fatal("no memory")
            if "bad" in name:
                raise ZssError("bad")
            yield name.upper()

    def write(self, image, decoded, result):
        if "full" in image.name:
            raise WriteError("disk full")
        with self.lock:
            self.written[decoded] = result
            self.under_way -= 1

    def fail(self, image, error):
        self.failed[image.name] = str(error)


def test_members_of_a_batch_are_labelled_together_and_the_wanted_ones_written():
    work = Recorder()
    pipeline.run([[member("a"), member("b", wanted=False)], [member("c")]], work, threads=2)
    assert work.batches == [["a", "b"], ["c"]]
    assert work.written == {"a": "A", "c": "C"}


def test_an_image_that_cannot_be_read_is_left_out_of_its_batch():
    work = Recorder()
    pipeline.run([[member("a"), member("unreadable"), member("b")]], work, threads=2)
    assert work.batches == [["a", "b"]]
    assert work.failed == {"unreadable": "unreadable"}


def test_the_others_of_a_batch_do_not_suffer_from_one_that_cannot_be_labelled():
    work = Recorder()
    pipeline.run([[member(name) for name in ("a", "bad", "b")]], work, threads=1)
    assert work.written == {"a": "A", "b": "B"}
    assert work.failed == {"bad": "bad"}
    assert work.batches == [["a", "bad", "b"], ["bad"], ["b"]]


@pytest.mark.parametrize(("name", "error"), [("full", WriteError), ("fatal", Fatal)])
def test_what_would_meet_every_image_ends_the_run_after_what_was_done(name, error):
    work = Recorder()
    endless = ([member(x)] for x in ["a", name, *map(str, range(10**6))])
    with pytest.raises(error):
        pipeline.run(endless, work, threads=1)
    assert work.written["a"] == "A"
    assert len(work.batches) < 10**5


def test_pixels_under_way_are_bounded(monkeypatch):
    monkeypatch.setattr(pipeline, "PIXELS_UNDER_WAY", 10)
    work = Recorder()
    slow = work.write
    work.write = lambda *arguments: (time.sleep(0.002), slow(*arguments))
    pipeline.run([[member(str(i), pixels=4)] for i in range(40)], work, threads=4)
    assert len(work.written) == 40
    assert work.most <= 2
    # One batch may always be under way.
    pipeline.run([[member("huge", pixels=100)], [member("next", pixels=100)]], work, threads=4)
    assert {"huge", "next"} <= set(work.written)


def test_a_signal_ends_it_with_all_written_that_was_labelled():
    work = Recorder()
    label = work.label

    def label_and_stop(names):
        yield from label(names)
        interrupt._stop.signum = 15 if names == ["3"] else None

    work.label = label_and_stop
    try:
        with pytest.raises(interrupt.Interrupted):
            pipeline.run([[member(str(i))] for i in range(100)], work, threads=1)
    finally:
        interrupt._stop.signum = None
    assert sorted(work.written) == ["0", "1", "2", "3"]


def test_an_error_of_the_plan_is_raised():
    def broken():
        yield [member("a")]
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        pipeline.run(broken(), Recorder(), threads=1)
