"""Signals wait for a good moment."""

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from eorinfer.campaign.signals import ask_again_when_lost, held_back


@pytest.fixture(autouse=True, params=[signal.SIGINT, signal.SIGTERM])
def signum(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = signal.getsignal(request.param)
    signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_comes_when_it_is_let_through(signum: signal.Signals) -> None:
    def body() -> None:
        with held_back() as let_through:
            let_through()
            os.kill(os.getpid(), signum)
            steps.append("held back")
            let_through()
            steps.append("too late")

    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        body()
    assert steps == ["held back"]
    assert signal.getsignal(signum) is signal.default_int_handler


def test_a_signal_comes_at_the_end_of_the_block(signum: signal.Signals) -> None:
    def body() -> None:
        with held_back():
            os.kill(os.getpid(), signum)
            steps.append("held back")
        steps.append("too late")

    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        body()
    assert steps == ["held back"]


def test_a_second_signal_is_not_held_back(signum: signal.Signals) -> None:
    def body() -> None:
        with held_back():
            os.kill(os.getpid(), signum)
            os.kill(os.getpid(), signum)
            pytest.fail("too late")

    with pytest.raises(KeyboardInterrupt):
        body()


def test_ignored_signals_stay_ignored(signum: signal.Signals) -> None:
    signal.signal(signum, signal.SIG_IGN)
    with held_back():
        os.kill(os.getpid(), signum)
    assert signal.getsignal(signum) is signal.SIG_IGN


class Slow:
    """Gets a signal in its destructor, where no exception comes out."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_a_lost_interrupt_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    ask_again_when_lost()
    before = [(s, signal.signal(s, signal.default_int_handler)) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        Slow()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
    finally:
        for signum, handler in before:
            signal.signal(signum, handler)
