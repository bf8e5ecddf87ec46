"""DNS: host names are resolved without blocking the event loop."""

import asyncio
import socket
import threading

import pytest

from s2v_tasks.adapters.http.dns import SystemResolver


async def test_a_name_in_line_behind_a_silent_server_is_not_blamed() -> None:
    """The one that hangs times out; the one that waited for its thread gets its result, however late."""
    released = threading.Event()

    def getaddrinfo(host: str, port: int) -> list[str]:
        if host == "silent.test":
            released.wait(60)
        return ["192.0.2.1"]

    names = SystemResolver(0.05, threads=1, getaddrinfo=getaddrinfo)
    silent, behind = (asyncio.create_task(names(f"{name}.test", 80)) for name in ("silent", "behind"))
    with pytest.raises(TimeoutError):
        await silent
    assert not behind.done()
    released.set()
    assert await behind == ["192.0.2.1"]
    names.close()


async def test_a_name_that_is_none_is_an_error_of_the_resolver() -> None:
    """Also a lookup whose caller timed out: no exception stays unretrieved."""

    def getaddrinfo(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    names = SystemResolver(5.0, getaddrinfo=getaddrinfo)
    with pytest.raises(socket.gaierror):
        await names("nowhere.test", 80)
    names.close()


async def test_the_system_reads_an_address_in_any_spelling() -> None:
    """What comes back is what a socket would connect to, so that it can be checked."""
    names = SystemResolver(30.0)
    spellings = ["127.0.0.1", "2130706433", "0x7f.1", "127.1"]
    assert [await names(host, 80) for host in spellings] == [["127.0.0.1"]] * len(spellings)
    names.close()
