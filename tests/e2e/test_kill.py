"""A run that ends on the way, however it ends: what was answered is kept, and the same command continues."""

import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import PRICE_USD, Bench, Ran, ended, ledger_ids, load, pointer, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions


def test_a_killed_run_continues_and_uses_every_answer(bench: Bench, tmp_path: Path) -> None:
    """After kill -9 the same command goes on with that run; only answers then under way are lost."""
    count, rate_per_s, latency_s = 60, 25, 0.3
    with Emulator(EmulatorOptions(limit=None, latency_s=latency_s)) as slow:
        bench = Bench(tmp_path, slow)
        set_rate(rate_per_s)
        candidates, ledger = bench.candidates(bench.portraits(count)), bench.out / "ledger.sqlite3"
        first = bench.start(*bench.curating(candidates, "--budget-usd", 2 * count * PRICE_USD))
        wait_until(lambda: ledger.exists() and len(bench.billed_urls()) >= 20)
        os.killpg(first.pid, signal.SIGKILL)
        ended(first)
        kept = ledger_ids(ledger)
        (run_dir,) = (bench.out / "runs").iterdir()
        assert load(run_dir / "manifest.json")["status"] == "running"

        second = bench.curate(candidates, "--budget-usd", 2 * count * PRICE_USD)
        assert second.status == 0, second.err
        assert f"continuing run {run_dir.name}" in second.err
        assert second.run_dir == run_dir
        invoice = bench.emulator.invoice()

    rows = second.verdicts
    assert rows.height == count
    assert set(rows["outcome"]) == {"passed"}
    answered_before = {line["image_url"] for line in invoice if line["request_id"] in kept}
    billed = Counter(line["image_url"] for line in invoice)
    assert all(billed[url] == 1 for url in answered_before)
    lost = len(invoice) - count
    assert 0 <= lost <= rate_per_s * latency_s + 3
    assert max(billed.values()) <= 2
    assert kept <= set(rows["request_id"])
    assert ledger_ids(ledger) == set(rows["request_id"])
    assert set(rows["request_id"]) <= {line["request_id"] for line in invoice}
    # What was lost counts at full price: a call that never arrived perhaps too, but never too little.
    unknown = round(second.manifest["cost_usd"]["unknown"] / PRICE_USD)
    assert lost <= unknown <= rate_per_s * latency_s + 3
    assert rows["cost_usd"].sum() == pytest.approx((count + unknown) * PRICE_USD)
    assert second.manifest["cost_usd"]["billed"] == pytest.approx(count * PRICE_USD)
    assert pointer(bench.out).rows == count
    assert not (run_dir / "work").exists()


def test_a_refused_account_stops_the_run_and_the_same_command_pays_only_the_rest(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """The vendor's words and the remedy in one line; every answer kept; continued once the key is mended."""
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
    assert rows.filter(outcome="unspent", reason="run_stopped").height == count - 15
    assert bench.received() - 15 <= 10  # those under way when the first refusal came

    bench.emulator.set_faults([])
    finished = command(*arguments)
    assert finished.status == 0, finished.err
    assert f"continuing run {stopped.run_dir.name}" in finished.err
    assert finished.run_dir == stopped.run_dir
    assert len(set(bench.billed_urls())) == len(bench.billed_urls()) == count
    assert ledger_ids(bench.out / "ledger.sqlite3") == bench.billed_ids()
    assert finished.manifest["cost_usd"] == {"billed": pytest.approx(count * PRICE_USD), "unknown": 0.0}


def test_a_new_run_may_be_asked_for_and_reuses_what_is_known(
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
    assert again.status == 2
    assert "mine is finished" in again.err


def test_lost_answers_are_counted_and_asked_at_most_twice(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """A picture whose answers never come is unknown, costs twice, and is asked no more by any run."""
    bench = in_process
    bench.emulator.set_faults(["drop:match=portrait-1.jpg"])
    candidates = bench.candidates(bench.portraits(4))
    arguments = bench.curating(candidates, "--max-unknown-share", 1)
    first = command(*arguments)
    assert first.status == 0, first.err
    assert first.verdicts["outcome"].to_list() == ["passed", "unknown", "passed", "passed"]
    assert first.manifest["cost_usd"] == {
        "billed": pytest.approx(3 * PRICE_USD),
        "unknown": pytest.approx(2 * PRICE_USD),
    }
    assert len(bench.billed_urls()) == 5
    second = command(*arguments)
    assert second.verdicts["outcome"].to_list() == ["passed", "unknown", "passed", "passed"]
    assert len(bench.billed_urls()) == 5
    once = command(*bench.curating(bench.candidates(bench.portraits(2)), "--on-unknown", "assume-paid",
                                   out=bench.folder / "other"))  # fmt: skip
    assert once.status == 3
    assert re.search(r"unknown_share: observed 0\.5\b", once.err)
    assert len(bench.billed_urls()) == 7
