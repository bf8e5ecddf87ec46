"""`s2v ledger show`: every header and every amount is whole, at 80 columns and in a pipe."""

import os
import pty
import re
import subprocess
from collections.abc import Callable

from workbench import COMMAND, Bench, Ran

RUN = "0b8f2f6e-6f2f-4d53-a4f0-0123456789ab"


def test_a_pipe_gets_a_line_for_each_run(command: Callable[..., Ran], in_process: Bench) -> None:
    """Whatever reads it finds each name in one piece, however narrow the terminal would be."""
    shown = ledger_shown(command, in_process)
    assert shown[0].split("  ")[0].strip() == "run"
    (line,) = [line for line in shown if line.startswith(RUN)]
    assert re.search(r" 2 .* 0\.001148 +0\.000000\s*$", line)
    assert {"not_billed", "lifetime_cost_usd", "unconfirmed_usd"} <= set(shown[0].split())


def test_a_narrow_terminal_folds_and_cuts_nothing(command: Callable[..., Ran], in_process: Bench) -> None:
    """At 80 columns the run's id takes two lines; numbers and headers stay whole."""
    ledger_shown(command, in_process)
    ours, theirs = pty.openpty()
    ledger = f"sqlite:///{in_process.out / 'ledger.sqlite3'}"
    env = {**in_process.env, "COLUMNS": "80", "TERM": "dumb"}
    arguments = [*COMMAND, "ledger", "show", "--ledger", ledger]
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=theirs, env=env)
    os.close(theirs)
    text = ""
    try:
        while some := os.read(ours, 4096):
            text += some.decode()
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    table = text.replace("\r", "").split("2 calls, 2 billed")[0]
    assert "…" not in table
    assert max(len(line) for line in table.splitlines()) <= 80
    cells = table.split()
    assert {"0.001148", "0.000000", "calls", "billed", "lifetime", "unconfirmed", "reserved"} <= set(cells)
    assert RUN in "".join(line.split()[0] for line in table.splitlines() if line.strip())[3:].replace(" ", "")


def ledger_shown(command: Callable[..., Ran], bench: Bench) -> list[str]:
    """A ledger of one run with two calls, and what the command prints of it into a pipe."""
    candidates = bench.candidates(bench.portraits(2))
    assert command(*bench.curating(candidates, "--run-id", RUN)).status == 0
    shown = command("ledger", "show", "--ledger", f"sqlite:///{bench.out / 'ledger.sqlite3'}")
    assert shown.status == 0, shown.err
    return shown.out.splitlines()
