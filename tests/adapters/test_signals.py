"""Signals stop every curation of the process, and nothing that the process ignores."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from s2v_tasks.adapters import signals


async def listen(names: list[str], until: asyncio.Event) -> None:
    with signals.on_stop_signal(names.append):
        await until.wait()


@pytest.mark.parametrize("number", signals.STOPPING)
async def test_a_signal_reaches_every_listener_that_is_left(number: signal.Signals) -> None:
    """Two curations in one process: the first to end takes no handler away from the other."""
    before = signal.getsignal(number)
    received: list[list[str]] = [[], [], []]
    events = [asyncio.Event() for _ in received]
    tasks = [asyncio.create_task(listen(*pair)) for pair in zip(received, events, strict=True)]
    await asyncio.sleep(0)
    events[0].set()
    await tasks[0]
    os.kill(os.getpid(), number)
    while not received[2]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert received == [[], [number.name], [number.name]]
    assert signal.getsignal(number) == before  # a second one is handled as before
    for event in events:
        event.set()
    await asyncio.gather(*tasks)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", signals.STOPPING)
async def test_a_handler_that_others_replaced_is_installed_again(number: signal.Signals) -> None:
    """Prefect replaces it when the flow of a second curation begins, and again when a flow ends."""
    before, heard = signal.getsignal(number), []
    with signals.on_stop_signal(heard.append):
        for renew in (lambda: signals.on_stop_signal(heard.append), signals.install):
            ours = signal.signal(number, signal.default_int_handler)
            with renew() or contextlib.nullcontext():
                assert signal.getsignal(number) is ours
        os.kill(os.getpid(), number)
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
    signal.signal(number, before)


@pytest.mark.parametrize("number", signals.STOPPING)
async def test_a_curation_that_begins_after_the_signal_is_stopped_too(number: signal.Signals) -> None:
    """While another one still listens; after it, only if the signal means the end of the process."""
    first, second, third = [], [], []
    with signals.on_stop_signal(first.append):
        os.kill(os.getpid(), number)
        while not first:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with signals.on_stop_signal(second.append):
            await asyncio.sleep(0)
    with signals.on_stop_signal(third.append):
        await asyncio.sleep(0)
    heard = [number.name]
    assert (first, second, third) == (heard, heard, [] if number == signal.SIGINT else heard)


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_handler_that_is_put_back_after_the_end_ends_the_process(number: signal.Signals) -> None:
    """Prefect restores what it found when a flow began."""
    code = """
    import asyncio, os, signal
    from s2v_tasks.adapters import signals
    number = signal.Signals[{name!r}]

    async def main():
        with signals.on_stop_signal(print):
            return signal.getsignal(number)

    signal.signal(number, asyncio.run(main()))
    os.kill(os.getpid(), number)
    print("alive")
    """
    script = textwrap.dedent(code).format(name=number.name)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("", -number), ran.stderr


@pytest.mark.parametrize("number", signals.STOPPING)
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    """As under nohup, and for SIGINT in a shell's background job."""
    code = """
    import asyncio, os, signal
    from s2v_tasks.adapters import signals
    number = signal.Signals[{name!r}]
    signal.signal(number, signal.SIG_IGN)

    async def main():
        with signals.on_stop_signal(lambda name: print("received", name)):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0)
        print("ignored" if signal.getsignal(number) is signal.SIG_IGN else "changed")

    asyncio.run(main())
    """
    script = textwrap.dedent(code).format(name=number.name)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.split() == ["ignored"], ran.stderr
