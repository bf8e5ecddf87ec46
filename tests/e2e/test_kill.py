"""A run that ends on the way, however it ends: what was received is kept, and the same command continues."""

import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from workbench import PRICE_USD, Bench, Ran, ended, ledger_ids, load, pointer, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions


def reserved(ledger: Path) -> int:
    """The calls under way, as the ledger has them."""
    with closing(sqlite3.connect(ledger)) as db:
        return db.execute("SELECT count(*) FROM attempts WHERE state = 'reserved'").fetchone()[0]


def test_a_killed_run_continues_and_uses_every_response(
    command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 the same command goes on with that run; only responses then under way are lost."""
    count, rate_per_s, latency_s = 60, 25, 0.3
    with Emulator(EmulatorOptions(limit=None, latency_s=latency_s)) as slow:
        bench = Bench(tmp_path, slow)
        set_rate(rate_per_s)
        candidates, ledger = bench.candidates(bench.portraits(count)), bench.out / "ledger.sqlite3"
        first = bench.start(*bench.curating(candidates, "--budget-usd", 2 * count * PRICE_USD))
        wait_until(lambda: ledger.exists() and len(bench.billed_urls()) >= 20)
        os.killpg(first.pid, signal.SIGKILL)
        ended(first)
        kept, under_way = ledger_ids(ledger), reserved(ledger)
        (run_dir,) = (bench.out / "runs").iterdir()
        assert load(run_dir / "manifest.json")["status"] == "running"

        monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", slow.base_url)
        second = command(*bench.curating(candidates, "--budget-usd", 2 * count * PRICE_USD))
        assert second.status == 0, second.err
        assert f"continuing run {run_dir.name}" in second.err
        assert second.run_dir == run_dir
        invoice = bench.emulator.invoice()

    rows = second.verdicts
    assert rows.height == count
    assert set(rows["outcome"]) == {"passed"}
    stored_before = {line["image_url"] for line in invoice if line["request_id"] in kept}
    billed = Counter(line["image_url"] for line in invoice)
    assert all(billed[url] == 1 for url in stored_before)
    lost = len(invoice) - count
    assert 0 <= lost <= under_way
    assert max(billed.values()) <= 2
    assert kept <= set(rows["request_id"])
    assert ledger_ids(ledger) == set(rows["request_id"])
    assert set(rows["request_id"]) <= {line["request_id"] for line in invoice}
    # What was lost counts at full price: a call that never arrived perhaps too, but never too little.
    unknown = round(second.manifest["run_cost_usd"]["unknown"] / PRICE_USD)
    assert lost <= unknown <= under_way
    assert rows["run_cost_usd"].sum() == pytest.approx((count + unknown) * PRICE_USD)
    assert second.manifest["run_cost_usd"]["billed"] == pytest.approx(count * PRICE_USD)
    assert pointer(bench.out).rows == count
    assert not (run_dir / "work").exists()


@pytest.mark.ci
def test_a_refused_account_stops_the_run_and_the_same_command_pays_only_the_rest(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """The vendor's message and the fix in one line; every response stored; continued with a valid key."""
    bench, count = in_process, 40
    set_rate(50)
    arguments = bench.curating(
        bench.candidates(bench.portraits(count)), "--budget-usd", round(count * PRICE_USD, 6)
    )
    bench.emulator.set_faults(["InvalidApiKey:first=15"])
    stopped = command(*arguments)
    assert stopped.status == 1
    line = stopped.err.splitlines()[-1]
    assert "401" in line
    assert "InvalidApiKey" in line
    assert "DASHSCOPE_API_KEY" in line
    assert "the same command" in line
    assert "Traceback" not in stopped.err
    assert stopped.manifest["status"] == "stopped"
    assert not (stopped.run_dir / "approved.parquet").exists()
    assert not (bench.out / "published").exists()
    rows = stopped.verdicts
    assert rows.height == count
    assert rows.filter(outcome="passed").height == len(bench.billed_ids()) == 15
    assert rows.filter(outcome="skipped", reason="run_stopped").height == count - 15
    assert bench.received() - 15 <= 10  # those under way when the first refusal came

    bench.emulator.set_faults([])
    finished = command(*arguments)
    assert finished.status == 0, finished.err
    assert f"continuing run {stopped.run_dir.name}" in finished.err
    assert finished.run_dir == stopped.run_dir
    assert len(set(bench.billed_urls())) == len(bench.billed_urls()) == count
    assert ledger_ids(bench.out / "ledger.sqlite3") == bench.billed_ids()
    assert finished.manifest["run_cost_usd"] == {"billed": pytest.approx(count * PRICE_USD), "unknown": 0.0}


@pytest.mark.ci
def test_a_new_run_may_be_started_and_reuses_what_is_known(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """--new-run leaves the stopped one behind; a run of other parameters does not continue it either."""
    bench = in_process
    candidates = bench.candidates(bench.portraits(6))
    bench.emulator.set_faults(["Arrearage:first=3"])
    stopped = command(*bench.curating(candidates))
    assert stopped.status == 1, stopped.err
    bench.emulator.set_faults([])
    other = command(*bench.curating(candidates, "--min-pass-rate", 0.4))
    assert other.run_dir != stopped.run_dir
    assert other.verdicts["from_ledger"].sum() == 3
    new = command(*bench.curating(candidates, "--new-run"))
    assert new.run_dir not in (stopped.run_dir, other.run_dir)
    named = command(*bench.curating(candidates, "--run-id", "mine"))
    assert named.run_dir.name == "mine"
    assert len(bench.billed_urls()) == 6
    again = command(*bench.curating(candidates, "--run-id", "mine"))
    assert (again.status, again.out) == (0, named.out)  # its recorded end


@pytest.mark.ci
def test_lost_responses_are_counted_and_images_sent_at_most_twice(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """An image whose responses are lost is unknown, costs twice, and is sent no more by any run."""
    bench = in_process
    bench.emulator.set_faults(["drop:match=portrait-1.jpg"])
    candidates = bench.candidates(bench.portraits(4))
    arguments = bench.curating(candidates, "--max-unknown-share", 1)
    first = command(*arguments)
    assert first.status == 0, first.err
    assert first.verdicts["outcome"].to_list() == ["passed", "unknown", "passed", "passed"]
    assert first.manifest["run_cost_usd"] == {
        "billed": pytest.approx(3 * PRICE_USD),
        "unknown": pytest.approx(2 * PRICE_USD),
    }
    assert len(bench.billed_urls()) == 5
    second = command(*arguments)
    assert second.verdicts["outcome"].to_list() == ["passed", "unknown", "passed", "passed"]
    assert len(bench.billed_urls()) == 5
    once = command(*bench.curating(bench.candidates(bench.portraits(2)), "--on-lost-response", "assume-paid",
                                   out=bench.folder / "other"))  # fmt: skip
    assert once.status == 3
    assert re.search(r"unknown_share: observed 0\.5\b", once.err)
    assert len(bench.billed_urls()) == 7
