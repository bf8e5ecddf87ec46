"""Equal bytes at different URLs: paid for once, and reported."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import polars as pl
import pytest
from workbench import Bench, Ran, ended, ledger_ids, wait_until

pytestmark = pytest.mark.ci


def copies(bench: Bench, number: int, count: int, subject: str = "portrait") -> list[str]:
    """Addresses of one and the same image."""
    return [bench.url(number, subject, f"?copy={n}") for n in range(count)]


def test_equal_bytes_are_paid_for_once_and_the_copies_say_so(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """The first row has the verdict and the money, the others name it; a later run pays nothing at all."""
    bench = in_process
    urls = [url for n in range(5) for url in copies(bench, n, 3)]
    urls += [*copies(bench, 1, 2, "crowd"), bench.url(9), bench.url(9), bench.url(7, query="?status=404")]
    ran = command(*bench.curating(bench.candidates(urls), "--dedupe", "bytes"))
    assert ran.status == 0, ran.err
    rows = ran.verdicts
    assert len(bench.emulator.invoice()) == 7
    assert ran.manifest["run_cost_usd"]["billed"] == pytest.approx(7 * 0.000574)
    found = rows.select("outcome", "reason", "duplicate_of", "run_cost_usd").rows()
    for first in range(0, 15, 3):
        assert found[first][:3] == ("passed", None, None)
        assert found[first + 1] == found[first + 2] == ("duplicate", "same_content", first, 0.0)
    assert found[15][0] == "failed"
    assert found[16] == ("duplicate", "same_content", 15, 0.0)
    assert found[17][:3] == ("passed", None, None)
    assert found[18] == ("duplicate", None, 17, 0.0)
    assert found[19][:2] == ("screened_out", "not_found")
    assert rows["image_key"].n_unique() == 19
    assert "same_content" in ran.out

    again = [bench.url(n, query="?other=1") for n in range(5)]
    more = bench.candidates([*again, *copies(bench, 0, 1)], "more.parquet")
    second = command(*bench.curating(more, "--dedupe", "bytes"))
    assert second.status == 0, second.err
    assert len(bench.emulator.invoice()) == 7
    found = second.verdicts.select(
        "outcome", "duplicate_of", "from_ledger", "run_cost_usd", "lifetime_cost_usd"
    ).rows()
    assert found == [*[("passed", None, True, 0.0, 0.000574)] * 5, ("duplicate", 0, False, 0.0, 0.0)]


def test_each_url_is_paid_for_without_the_option_to_compare(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """It is an option: fetching all bytes is not free for everyone."""
    ran = command(*in_process.curating(in_process.candidates(copies(in_process, 1, 3))))
    assert ran.status == 0, ran.err
    assert len(in_process.emulator.invoice()) == 3


@pytest.mark.ci
def test_a_killed_run_goes_on_and_pays_for_no_copy(in_process: Bench, command: Callable[..., Ran]) -> None:
    """Which image represents which bytes is in the ledger, so the restarted run sends nothing twice."""
    bench = in_process
    candidates = bench.candidates([url for n in range(40) for url in copies(bench, n, 3)])
    with bench.start(*bench.curating(candidates, "--dedupe", "bytes")) as first:
        wait_until(lambda: len(bench.emulator.invoice()) >= 10)
        first.kill()
        ended(first)
    ran = command(*bench.curating(candidates, "--dedupe", "bytes"))
    assert ran.status == 0, ran.err
    outcomes = Counter(ran.verdicts["outcome"])
    assert outcomes == {"passed": 40, "duplicate": 80}
    with closing(sqlite3.connect(bench.out / "ledger.sqlite3")) as ledger, ledger:
        ((lost,),) = ledger.execute("SELECT count(*) FROM attempts WHERE state = 'unknown'")
    assert 40 <= len(bench.emulator.invoice()) <= 40 + lost
    assert len(ledger_ids(bench.out / "ledger.sqlite3")) == 40
    assert ran.verdicts.filter(outcome="duplicate")["duplicate_of"].equals(
        pl.Series("duplicate_of", [3 * (n // 2) for n in range(80)])
    )


def test_bytes_cant_be_compared_without_fetching_any(in_process: Bench, command: Callable[..., Ran]) -> None:
    """Two options that contradict each other: one line, nothing written."""
    ran = command(*in_process.curating("x.csv", "--no-screen", "--dedupe", "bytes"))
    assert ran.status == 2
    assert "--dedupe" in ran.err
    assert not in_process.out.exists()
