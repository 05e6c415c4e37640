"""What processes of one run agree on, and the device of each."""

from __future__ import annotations

import pytest

from zss_d2.collection import ranks
from zss_d2.collection.ranks import Ranks, device_of, lost_contact
from zss_d2.errors import ZssError


@pytest.fixture
def gpus(monkeypatch):
    def have(number: int) -> None:
        monkeypatch.setattr(ranks.torch.cuda, "device_count", lambda: number)

    return have


def test_every_process_of_a_machine_has_a_gpu_of_its_own(gpus):
    gpus(2)
    third = Ranks(rank=5, world=8, local_rank=1, local_world=2)
    assert device_of("auto", third) == "cuda:1"
    assert device_of("cuda", third) == "cuda:1"
    assert device_of("cpu", third) == "cpu"
    with pytest.raises(ZssError, match="one GPU, and there are 2 processes"):
        device_of("cuda:0", third)
    with pytest.raises(ZssError, match="4 processes on this machine and 2 GPUs"):
        device_of("auto", Ranks(rank=3, world=4, local_rank=3, local_world=4))


def test_a_single_process_and_machines_without_gpus_take_what_is_named(gpus):
    gpus(2)
    assert device_of("auto", Ranks()) == "auto"
    assert device_of("cuda:1", Ranks()) == "cuda:1"
    gpus(0)
    assert device_of("auto", Ranks(0, 2, 0, 2)) == "auto"


def test_a_single_process_agrees_with_itself(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    alone = ranks.join()
    assert alone == Ranks()
    assert alone.first(lambda: 3) == alone.each(lambda: 3) == alone.total(3) == 3


def test_an_error_of_one_process_is_told_by_the_first_and_ends_all(monkeypatch):
    """The collectives of torch, as if the other process had sent what is said here."""
    others: list = []

    def gather(outcomes, own):
        outcomes[:] = [own, *others]

    monkeypatch.setattr(ranks.dist, "all_gather_object", gather)
    monkeypatch.setattr(ranks.dist, "broadcast_object_list", lambda outcome: None)
    first = Ranks(0, 2, 0, 2)
    others[:] = [(None, "")]
    assert first.each(lambda: 3) == 3
    others[:] = [(None, "its disk is full")]
    with pytest.raises(ZssError, match="its disk is full"):
        first.each(lambda: 3)

    def fail():
        raise FileNotFoundError(2, "No such file", "x.txt")

    with pytest.raises(ZssError, match="x.txt: No such file"):
        first.first(fail)
    others[:] = [(None, "")]
    with pytest.raises(SystemExit) as ended:
        Ranks(1, 2, 1, 2).each(fail)
    assert ended.value.code == 2


def test_contact_that_is_lost_is_told_from_other_errors():
    assert lost_contact(RuntimeError("[gloo] Connection closed by peer [::1]:123"))
    assert not lost_contact(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
