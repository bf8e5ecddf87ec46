"""A curation run from candidates to publication: money, pace, and never paying twice."""

from collections.abc import Callable

import polars as pl
import pytest
from workbench import PRICE_USD, Bench, Ran, ledger_ids, pointer, set_rate

SAME = ["image_url", "outcome", "check_pass", "humanoid", "code", "request_id", "judged_at", "paid_usd"]


def check_pace(bench: Bench, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The service let all in and refused next to none; rate and refusals are printed.

    It refuses whatever is a sixth call in any second, so a wrong pace shows by refusals: calls sent at once
    would give dozens. A few are the jitter of a busy machine.
    """
    calls = bench.emulator.calls()
    at_s = [arrival["at_s"] for arrival in calls["arrivals"]]
    rate = (len(at_s) - 1) / (at_s[-1] - at_s[0])
    told = f"{len(at_s)} calls at {rate:.3f} a second, {rate / 5:.1%} of 5; {calls['throttled']} refused"
    with capfd.disabled():
        print(f"\n{told}")  # noqa: T201
    assert calls["admitted"] == count
    assert calls["throttled"] <= count // 20


def test_a_run_keeps_the_rate_and_a_second_one_pays_nothing(
    paced: Bench,
    command: Callable[..., Ran],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred pictures at 5 a second are billed as the ledger says; known ones are never asked again."""
    set_rate(5)
    candidates = paced.candidates(paced.portraits(100))
    first = paced.curate(candidates)
    assert first.status == 0, first.err
    check_pace(paced, 100, capfd)
    ledger = paced.out / "ledger.sqlite3"
    assert ledger_ids(ledger) == paced.billed_ids()
    assert len(paced.billed_ids()) == 100
    assert first.manifest["cost_usd"] == {"billed": pytest.approx(100 * PRICE_USD), "unknown": 0.0}
    assert first.verdicts["cost_usd"].sum() == pytest.approx(100 * PRICE_USD)

    for out in (paced.out, paced.folder / "elsewhere"):
        monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", paced.emulator.base_url)
        again = command(*paced.curating(candidates, "--ledger", f"sqlite:///{ledger}", out=out))
        assert again.status == 0, again.err
        assert again.run_dir != first.run_dir
        assert again.verdicts.select(SAME).equals(first.verdicts.select(SAME))
        assert again.verdicts["from_ledger"].all()
        assert again.verdicts["attempts"].sum() == 0
        assert again.verdicts["cost_usd"].sum() == 0
        assert again.manifest["cost_usd"] == {"billed": 0.0, "unknown": 0.0}
        assert again.manifest["data_set_cost_usd"] == pytest.approx(100 * PRICE_USD)
        assert pointer(out).run_id == again.manifest["run_id"]
    assert paced.received() == 100 + paced.emulator.calls()["throttled"]


@pytest.mark.slow
def test_three_hundred_pictures_keep_the_rate(paced: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """A minute at 5 a second: all admitted, never six in a second."""
    ran = paced.curate(paced.candidates(paced.portraits(300)))
    assert ran.status == 0, ran.err
    check_pace(paced, 300, capfd)
    assert ledger_ids(paced.out / "ledger.sqlite3") == paced.billed_ids()


def test_the_published_file_is_what_the_pointer_says(bench: Bench) -> None:
    """A reader of the pointer finds the approved rows, their hash and their number."""
    import hashlib

    urls = [bench.url(0), bench.url(1, "crowd"), bench.url(2), bench.url(3)]
    ran = bench.curate(bench.candidates(urls))
    assert ran.status == 0, ran.err
    published = pointer(bench.out)
    approved = pl.read_parquet(published.path)
    assert approved["image_url"].to_list() == [urls[0], urls[2], urls[3]]
    assert published.rows == 3
    with open(published.path, "rb") as file:  # noqa: PTH123
        assert published.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    assert published.gate.pass_rate == 0.75
    assert ran.manifest["files"]["approved.parquet"] == published.sha256
