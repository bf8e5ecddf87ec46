"""A curation that is cancelled after a signal: the signal is why it ended."""

import asyncio
import signal

import pytest

from s2v_tasks.errors import Interrupted
from s2v_tasks.runtime.curation import stopped_by_signal


async def cancelled_after_a_signal(*, is_open: bool) -> None:
    with stopped_by_signal() as opened:
        if is_open:
            opened()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        if is_open:
            raise asyncio.CancelledError
        await asyncio.sleep(60)


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_cancelled_curation_that_heard_a_signal_was_interrupted(*, is_open: bool) -> None:
    """While it opens the signal cancels it; afterwards others may, as clients of silent servers do."""
    with pytest.raises(Interrupted, match="SIGTERM"):
        await cancelled_after_a_signal(is_open=is_open)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancelled_curation_without_a_signal_stays_cancelled() -> None:
    """The code that cancelled it must see that it was."""
    with pytest.raises(asyncio.CancelledError), stopped_by_signal():
        raise asyncio.CancelledError
