"""The command's own Prefect server never outlives it, however it ends."""

import os
import signal
import subprocess
import uuid
from collections.abc import Callable

from workbench import Bench, Ran, descendants, ended, load, wait_until

GONE_WITHIN_S = 20.0
"""The server has 5 s for last events, then ends itself."""


def begin(bench: Bench, first: int) -> tuple[subprocess.Popen[str], str]:
    """Start a long run over pictures of its own; it is under way when this returns its process and mark."""
    mark = uuid.uuid4().hex
    candidates = bench.candidates(bench.portraits(200, first), f"{first}.parquet")
    process = bench.start(*bench.curating(candidates, out=bench.folder / str(first)), TESTS_MARK=mark)
    return process, mark


def asked(bench: Bench, first: int) -> bool:
    return any(url in bench.billed_urls() for url in bench.portraits(5, first))


def check_nobody_left(mark: str) -> None:
    wait_until(lambda: not descendants(mark), GONE_WITHIN_S)


def test_an_interrupted_command_stops_in_order_and_continues(
    alone: Bench, command: Callable[..., Ran]
) -> None:
    """Ctrl-C: one line, status 1, verdicts and manifest written; the same command finishes the run."""
    mark = uuid.uuid4().hex
    candidates = alone.candidates(alone.portraits(14))
    arguments = alone.curating(candidates)
    process = alone.start(*arguments, TESTS_MARK=mark)
    wait_until(lambda: len(alone.billed_urls()) >= 3)
    assert len(descendants(mark)) == 2
    os.killpg(process.pid, signal.SIGINT)  # the terminal's Ctrl-C is for the whole group
    ran = ended(process)
    assert ran.status == 1
    assert "Traceback" not in ran.out + ran.err
    *_, line = ran.err.splitlines()
    assert line == "s2v: stopped by SIGINT; everything received is kept: the same command continues"
    assert ran.manifest["status"] == "stopped"
    assert ran.verdicts.height == 14
    assert ran.verdicts.filter(outcome="passed").height == len(alone.billed_urls())
    check_nobody_left(mark)

    again = command(*arguments)
    assert again.status == 0, again.err
    assert again.run_dir == ran.run_dir
    assert len(set(alone.billed_urls())) == len(alone.billed_urls()) == 14


def test_nobody_is_left_by_end_term_kill_or_hangup(alone: Bench) -> None:
    """SIGTERM stops in order; after SIGKILL, a closed terminal or the run's end the server ends itself."""
    usual = uuid.uuid4().hex
    finished = alone.start(*alone.curating(alone.candidates(alone.portraits(1))), TESTS_MARK=usual)
    signals = {0: signal.SIGTERM, 1_000: signal.SIGKILL, 2_000: signal.SIGHUP}
    begun = {first: begin(alone, first) for first in signals}
    wait_until(lambda: all(asked(alone, first) for first in signals), 180)  # four start at once
    for first, number in signals.items():
        process, mark = begun[first]
        assert len(descendants(mark)) == 2
        os.killpg(process.pid, number)
    statuses = {first: ended(process) for first, (process, _) in begun.items()}
    assert statuses[0].status == 1
    assert "stopped by SIGTERM" in statuses[0].err
    assert statuses[0].manifest["status"] == "stopped"
    assert statuses[1_000].status == -signal.SIGKILL
    last = ended(finished)
    assert last.status == 0, last.err
    for mark in (usual, *(mark for _, mark in begun.values())):
        check_nobody_left(mark)
    assert load(next((alone.folder / "2000" / "runs").glob("*/manifest.json")))["status"] != "published"


def test_a_command_interrupted_while_it_starts_says_one_line(alone: Bench) -> None:
    """Ctrl-C before the run has opened: status 1, one line, no traceback, nobody left."""
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
    check_nobody_left(mark)
