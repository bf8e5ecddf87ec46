"""Who holds a run: distinguished from a process that ended, and from another one of the same id."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from s2v_tasks.adapters.database.lease import LeaseOwner


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], LeaseOwner]]:
    """A living process, and who it says that it is."""
    program = (
        "from s2v_tasks.adapters.database.lease import LeaseOwner as H; h = H.current();"
        " print(h.host, h.pid, h.process_start, sep='|', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        host, pid, process_start = process.stdout.readline().strip().split("|")
        yield process, LeaseOwner("owner", host, int(pid), process_start)
        process.kill()


def test_this_process_is_not_gone() -> None:
    """The process that calls this exists."""
    assert not LeaseOwner.current().is_gone


def test_every_lease_has_an_owner_of_its_own() -> None:
    """A process that takes a run over from itself is fenced all the same."""
    assert LeaseOwner.current().token != LeaseOwner.current().token


def test_another_living_process_is_not_gone(child: tuple[subprocess.Popen[str], LeaseOwner]) -> None:
    """Its start time reads the same from outside as from inside."""
    assert not child[1].is_gone


def test_a_killed_process_is_gone(child: tuple[subprocess.Popen[str], LeaseOwner]) -> None:
    """At once, not after the lease's 15 s; and even before its parent has taken note."""
    process, holder = child
    process.kill()
    for _ in range(500):
        if psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.01)
    assert holder.is_gone, "a zombie works no more"
    process.wait()
    assert holder.is_gone


def test_a_process_on_another_machine_can_not_be_checked() -> None:
    """Its silence is all there is to go by."""
    elsewhere = replace(LeaseOwner.current(), host="elsewhere", pid=2**22 + 1)
    assert not elsewhere.is_gone


def test_a_process_id_that_was_given_to_another_process_is_gone() -> None:
    """The start time distinguishes them."""
    assert replace(LeaseOwner.current(), process_start="1.00").is_gone


def test_two_containers_of_one_name_are_two_machines() -> None:
    """They share a host name but not the process ids, so the name alone proves nothing."""
    here = LeaseOwner.current()
    name = here.host.split()[0]
    other = replace(here, host=f"{name} 00000000", pid=2**22 + 1)
    assert not other.is_gone
    assert here.host.startswith(f"{name} ") or not Path("/proc/self/ns/pid").exists()
