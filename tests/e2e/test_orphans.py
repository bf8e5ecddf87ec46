"""The command's own Prefect server never outlives it, however it ends."""

import os
import signal
import uuid
from collections.abc import Callable

import pytest
from workbench import Bench, Ran, descendants, ended, load, wait_until

GONE_WITHIN_S = 60.0
"""The server has 5 s for last events, then ends itself; a busy machine takes its time."""


def check_no_process_left(mark: str) -> None:
    wait_until(lambda: not descendants(mark), GONE_WITHIN_S)


def test_an_interrupted_command_stops_in_order_and_continues(
    alone: Bench, command: Callable[..., Ran]
) -> None:
    """Ctrl-C: one line, status 1, verdicts and manifest written; the same command finishes the run."""
    mark = uuid.uuid4().hex
    candidates = alone.candidates(alone.portraits(60))
    arguments = alone.curating(candidates)
    process = alone.start(*arguments, TESTS_MARK=mark)
    wait_until(lambda: len(alone.billed_urls()) >= 3)  # of 60 at 5 a second: there is time
    assert len(descendants(mark)) == 2
    os.killpg(process.pid, signal.SIGINT)  # the terminal's Ctrl-C is for the whole group
    ran = ended(process)
    assert ran.status == 1
    assert "Traceback" not in ran.out + ran.err
    *_, line = ran.err.splitlines()
    assert line == "s2v: stopped by SIGINT; everything received is kept: the same command continues"
    assert ran.manifest["status"] == "stopped"
    assert ran.verdicts.height == 60
    assert ran.verdicts.filter(outcome="passed").height == len(alone.billed_urls())
    check_no_process_left(mark)

    again = command(*arguments)
    assert again.status == 0, again.err
    assert again.run_dir == ran.run_dir
    assert len(set(alone.billed_urls())) == len(alone.billed_urls()) == 60


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_no_process_is_left_by_a_command_that_a_signal_ends(alone: Bench, number: signal.Signals) -> None:
    """After SIGKILL the server ends itself; SIGTERM and a closed terminal stop in order."""
    mark = uuid.uuid4().hex
    process = alone.start(*alone.curating(alone.candidates(alone.portraits(200))), TESTS_MARK=mark)
    wait_until(alone.billed_urls)
    assert len(descendants(mark)) == 2
    os.killpg(process.pid, number)
    ran = ended(process)
    check_no_process_left(mark)
    status = load(next((alone.out / "runs").glob("*/manifest.json")))["status"]
    if number == signal.SIGKILL:
        assert (ran.status, status) == (-signal.SIGKILL, "running")
    else:
        assert (ran.status, status) == (1, "stopped")
        assert f"stopped by {number.name}" in ran.err


def test_a_command_interrupted_while_it_starts_says_one_line(alone: Bench) -> None:
    """Ctrl-C before the run has opened: status 1, one line, no traceback, no process left."""
    mark = uuid.uuid4().hex
    candidates = alone.candidates(alone.portraits(14))
    process = alone.start(*alone.curating(candidates), TESTS_MARK=mark)
    wait_until(lambda: len(descendants(mark)) == 2)
    os.killpg(process.pid, signal.SIGINT)
    ran = ended(process)
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if not line.startswith("warning: private hosts")]
    assert line.startswith("s2v: ")
    assert "the same command continues" in line
    check_no_process_left(mark)
