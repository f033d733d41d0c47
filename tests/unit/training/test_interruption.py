from __future__ import annotations

import os
import signal

import pytest

from distill.training.interruption import Interrupted, Interruption


@pytest.fixture
def interrupts():
    """Ctrl-C stops Python as in a terminal; it is ignored where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_the_first_signal_waits_for_the_check_and_the_second_does_not():
    interruption = Interruption()
    with interruption.catching_signals():
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="stopped by SIGINT"):
            interruption.check()
        with pytest.raises(KeyboardInterrupt) as second:
            os.kill(os.getpid(), signal.SIGINT)
        assert second.type is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(Interrupted):
        interruption.check()
