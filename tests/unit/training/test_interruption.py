from __future__ import annotations

import os
import signal

import pytest

from distill.training.interruption import Interrupted, Interruption


def test_the_first_signal_waits_for_the_check_and_the_second_does_not():
    interruption = Interruption()
    before = signal.getsignal(signal.SIGINT)
    with interruption.catching_signals():
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="stopped by SIGINT"):
            interruption.check()
        with pytest.raises(KeyboardInterrupt) as second:
            os.kill(os.getpid(), signal.SIGINT)
        assert second.type is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(Interrupted):
        interruption.check()
