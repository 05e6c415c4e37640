import os
import signal

import pytest

from zss_d2.engine.processes import interrupt
from zss_d2.engine.processes.interrupt import (
    Interrupted,
    deferred,
    handing_on,
    listening,
    requested,
    stop_if_requested,
)


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_at_once_unless_it_is_deferred(signum, status):
    with listening():
        with pytest.raises(Interrupted) as stopped:
            send(signum)
        assert stopped.value.code == status
    with listening(), deferred():
        assert requested() is None
        send(signum)
        send(signum)  # the same again, from a launcher
        assert requested() == signum
        with pytest.raises(Interrupted):
            stop_if_requested()


def test_a_signal_stays_requested_until_somebody_asks():
    with listening():
        stop_if_requested()
        with deferred():
            send(signal.SIGTERM)
        assert requested() == signal.SIGTERM
        with deferred(), pytest.raises(Interrupted):
            stop_if_requested()


def test_a_second_signal_ends_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_S", -1.0)
    with listening(), deferred():
        send(signal.SIGTERM)
        assert not ended
        send(signal.SIGINT)
    assert ended == [130]


def test_a_launcher_hands_on_and_waits(monkeypatch):
    sent = []
    with listening(), handing_on(lambda: [4711, 4712]):
        kill = os.kill
        monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append((pid, signum)))
        kill(os.getpid(), signal.SIGTERM)
        assert sent == [(4711, signal.SIGTERM), (4712, signal.SIGTERM)]


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with listening():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
