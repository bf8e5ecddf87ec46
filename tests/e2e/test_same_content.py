"""Equal bytes behind different addresses: paid for once, and said so."""

import sqlite3
from collections import Counter

import polars as pl
import pytest
from workbench import Bench, ended, ledger_ids, wait_until


def copies(bench: Bench, number: int, count: int, subject: str = "portrait") -> list[str]:
    """Addresses of one and the same picture."""
    return [bench.url(number, subject, f"?copy={n}") for n in range(count)]


def test_equal_bytes_are_paid_for_once_and_the_copies_say_so(bench: Bench) -> None:
    """The first row has the verdict and the money, the others name it; a later run pays nothing at all."""
    urls = [url for n in range(5) for url in copies(bench, n, 3)]
    urls += [*copies(bench, 1, 2, "crowd"), bench.url(9), bench.url(9), bench.url(7, query="?status=404")]
    ran = bench.curate(bench.candidates(urls), "--same-content")
    assert ran.status == 0, ran.err
    rows = ran.verdicts
    assert len(bench.emulator.invoice()) == 7
    assert ran.manifest["cost_usd"]["billed"] == pytest.approx(7 * 0.000574)
    told = rows.select("outcome", "reason", "duplicate_of", "cost_usd").rows()
    for first in range(0, 15, 3):
        assert told[first][:3] == ("passed", None, None)
        assert told[first + 1] == told[first + 2] == ("duplicate", "same_content", first, 0.0)
    assert told[15][0] == "failed"
    assert told[16] == ("duplicate", "same_content", 15, 0.0)
    assert told[17][:3] == ("passed", None, None)
    assert told[18] == ("duplicate", None, 17, 0.0)
    assert told[19][:2] == ("screened_out", "not_found")
    assert rows["image_key"].n_unique() == 19
    assert "same_content" in ran.out

    again = [bench.url(n, query="?other=1") for n in range(5)]
    second = bench.curate(bench.candidates([*again, *copies(bench, 0, 1)], "more.parquet"), "--same-content")
    assert second.status == 0, second.err
    assert len(bench.emulator.invoice()) == 7
    told = second.verdicts.select("outcome", "duplicate_of", "from_ledger", "cost_usd", "paid_usd").rows()
    assert told == [*[("passed", None, True, 0.0, 0.000574)] * 5, ("duplicate", 0, False, 0.0, 0.0)]


def test_each_address_is_paid_for_where_nobody_asked_to_compare(bench: Bench) -> None:
    """It is an option: fetching all bytes is not free for everyone."""
    ran = bench.curate(bench.candidates(copies(bench, 1, 3)))
    assert ran.status == 0, ran.err
    assert len(bench.emulator.invoice()) == 3


def test_a_killed_run_goes_on_and_pays_for_no_copy(bench: Bench) -> None:
    """Who stands for which bytes is in the ledger, so the second life asks nothing twice."""
    candidates = bench.candidates([url for n in range(40) for url in copies(bench, n, 3)])
    with bench.start(*bench.curating(candidates, "--same-content")) as first:
        wait_until(lambda: len(bench.emulator.invoice()) >= 10)
        first.kill()
        ended(first)
    ran = bench.curate(candidates, "--same-content")
    assert ran.status == 0, ran.err
    outcomes = Counter(ran.verdicts["outcome"])
    assert outcomes == {"passed": 40, "duplicate": 80}
    with sqlite3.connect(bench.out / "ledger.sqlite3") as ledger:
        ((lost,),) = ledger.execute("SELECT count(*) FROM attempts WHERE state = 'unknown'")
    assert 40 <= len(bench.emulator.invoice()) <= 40 + lost
    assert len(ledger_ids(bench.out / "ledger.sqlite3")) == 40
    assert ran.verdicts.filter(outcome="duplicate")["duplicate_of"].equals(
        pl.Series("duplicate_of", [3 * (n // 2) for n in range(80)])
    )


def test_bytes_cant_be_compared_without_fetching_any(bench: Bench) -> None:
    """Two options that contradict each other: one line, nothing written."""
    ran = bench.run("curate", "x.csv", "--out", bench.out, "--budget-usd", 1, "--no-screen", "--same-content")
    assert ran.status == 2
    assert "--same-content" in ran.err
    assert not bench.out.exists()
