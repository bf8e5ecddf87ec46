"""docs/guides/money.md: its commands are run, line by line, on the ledger of a run."""

import csv
import os
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from workbench import Bench, Ran

pytestmark = pytest.mark.ci

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "money.md").read_text("utf-8")
REPORTS = [
    "s2v ledger show --by day",
    "s2v ledger export attempts.parquet",
    "s2v ledger reconcile invoice.csv",
]
REVOKE = "s2v ledger revoke --code InvalidParameter --reason image_refused"
COPIES = [
    "sqlite3 ledger.sqlite3 \"VACUUM INTO 'copy.sqlite3'\"",
    (
        'python3 -c "import sqlite3;'
        " sqlite3.connect('ledger.sqlite3').backup(sqlite3.connect('copy.sqlite3'))\""
    ),
]
UPGRADE = "s2v ledger upgrade --ledger postgresql://s2v@db.internal/ledger"


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == [*REPORTS, REVOKE, *COPIES, UPGRADE]


def test_the_commands_of_the_page_work_as_written(in_process: Bench, command: Callable[..., Ran]) -> None:
    """Reports, the vendor's invoice, a revocation, a copy and an upgrade (of a SQLite ledger here)."""
    bench, folder = in_process, Path.cwd()
    urls = [*bench.portraits(6), bench.url(7, "nobody")]
    os.environ["S2V_LEDGER_URL"] = url = f"sqlite:///{folder / 'ledger.sqlite3'}"
    assert command(*bench.curating(bench.candidates(urls))).status == 0
    with Path("invoice.csv").open("w") as file:
        writer = csv.DictWriter(file, ["request_id", "image_url", "billed_at", "micro_usd"])
        writer.writeheader()
        writer.writerows(bench.emulator.invoice())
    for line in REPORTS:
        ran = command(*shlex.split(line)[1:])
        assert ran.status == 0, ran.err
    assert "6 calls on both; 0 only on the invoice" in ran.out

    # A verdict as an earlier program might have read it.
    with closing(sqlite3.connect("ledger.sqlite3")) as db, db:
        db.execute(
            "UPDATE verdicts SET outcome = 'error', code = 'InvalidParameter', reason = 'image_refused'"
            " WHERE billing = 'not_billed'"
        )
    db.close()
    assert "1 verdicts revoked" in command(*shlex.split(REVOKE)[1:], "--yes").out

    with closing(sqlite3.connect("ledger.sqlite3")) as db, db:
        db.execute(shlex.split(COPIES[0])[2])
    db.close()
    Path("copy.sqlite3").unlink()
    assert subprocess.run(["bash", "-c", COPIES[1]]).returncode == 0
    os.environ["S2V_LEDGER_URL"] = f"sqlite:///{folder / 'copy.sqlite3'}"
    assert "7 calls, 6 billed" in command("ledger", "show").out

    upgraded = command(*shlex.split(UPGRADE.replace("postgresql://s2v@db.internal/ledger", url))[1:])
    assert (upgraded.status, "the newest" in upgraded.out) == (0, True)


def test_an_invoice_that_differs_is_not_reconciled(in_process: Bench, command: Callable[..., Ran]) -> None:
    """A charge that the ledger does not have, and a call that the invoice lacks, are named; status 5."""
    bench = in_process
    command(*bench.curating(bench.candidates(bench.portraits(2))))
    invoice = bench.folder / "invoice.csv"
    invoice.write_text("request_id\nnot-ours\n")
    ran = command("ledger", "reconcile", invoice, "--ledger", f"sqlite:///{bench.out / 'ledger.sqlite3'}")
    assert ran.status == 5
    assert "1 charges are not this ledger's: not-ours" in ran.out
    assert all(request_id in ran.out for request_id in bench.billed_ids())
