"""Looking up names without holding anything up."""

import asyncio
import socket
import threading

import pytest

from s2v_tasks.adapters.names import SystemNames


async def test_a_name_in_line_behind_a_silent_server_is_not_blamed() -> None:
    """The one that hangs times out; the one that waited for its thread is answered, however late."""
    answered = threading.Event()

    def look_up(host: str, port: int) -> list[str]:
        if host == "silent.test":
            answered.wait(60)
        return ["192.0.2.1"]

    names = SystemNames(0.05, threads=1, look_up=look_up)
    silent, behind = (asyncio.create_task(names(f"{name}.test", 80)) for name in ("silent", "behind"))
    with pytest.raises(TimeoutError):
        await silent
    assert not behind.done()
    answered.set()
    assert await behind == ["192.0.2.1"]
    names.close()


async def test_a_name_that_is_none_is_an_error_of_the_resolver() -> None:
    """Also one that nobody waits for any more: nothing is left unseen."""

    def look_up(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    names = SystemNames(5.0, look_up=look_up)
    with pytest.raises(socket.gaierror):
        await names("nowhere.test", 80)
    names.close()


async def test_the_system_reads_an_address_in_any_spelling() -> None:
    """What comes back is what a socket would connect to, so that it can be checked."""
    names = SystemNames(30.0)
    spelt = ["127.0.0.1", "2130706433", "0x7f.1", "127.1"]
    assert [await names(host, 80) for host in spelt] == [["127.0.0.1"]] * len(spelt)
    names.close()
