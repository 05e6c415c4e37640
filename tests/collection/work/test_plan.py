"""Batches depend on the images alone."""

from __future__ import annotations

from zss_d2.collection.work.plan import BATCH_PX, batches, chunks, share


def test_chunks_hold_some_batches_each():
    assert chunks(3, 1) == [range(1), range(1, 2), range(2, 3)]
    assert chunks(20, 2) == [range(8), range(8, 16), range(16, 20)]
    assert chunks(0, 2) == []


def test_processes_take_turns():
    pieces = chunks(20, 2)
    assert share(pieces, 0, 2) == [pieces[0], pieces[2]]
    assert share(pieces, 1, 2) == [pieces[1]]
    assert share(pieces, 3, 4) == []


def test_images_of_one_kind_go_together():
    kinds = ["x", "y", "x", "x", None, "y", None, "x"]
    assert list(batches(kinds, [1] * 8, 3)) == [[0, 2, 3], [1, 5], [4], [6], [7]]


def test_a_batch_has_so_many_pixels_at_most_but_for_a_single_image():
    half = BATCH_PX // 2
    areas = [half, half, 1, 2 * BATCH_PX, 1]
    assert list(batches(["x"] * 5, areas, 9)) == [[0, 1], [2], [3], [4]]
