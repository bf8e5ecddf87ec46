"""A curation run from candidates to publication: money, rate, and never paying twice."""

import hashlib
import os
import subprocess
from collections.abc import Callable

import polars as pl
import pytest
from workbench import COMMAND, PRICE_USD, Bench, Ran, ledger_ids, pointer, set_rate

SAME = [
    "image_url",
    "outcome",
    "check_pass",
    "humanoid",
    "code",
    "request_id",
    "checked_at",
    "lifetime_cost_usd",
]


def check_rate(bench: Bench, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The service let all in and refused next to none; rate and refusals are printed.

    It refuses whatever is a sixth call in any second, so a wrong rate shows by refusals: calls sent at once
    would give dozens. A few are the jitter of a busy machine.
    """
    calls = bench.emulator.calls()
    at_s = [arrival["at_s"] for arrival in calls["arrivals"]]
    rate = (len(at_s) - 1) / (at_s[-1] - at_s[0])
    summary = f"{len(at_s)} calls at {rate:.3f} a second, {rate / 5:.1%} of 5; {calls['throttled']} refused"
    with capfd.disabled():
        print(f"\n{summary}")  # noqa: T201
    assert calls["admitted"] == count
    assert calls["throttled"] <= count // 20


@pytest.mark.parametrize("images", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_keeps_the_rate_and_a_second_one_pays_nothing(
    rate_limited: Bench,
    command: Callable[..., Ran],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    images: int,
) -> None:
    """Images at 5 a second are billed as the ledger says; known ones are never sent again."""
    set_rate(5)
    candidates = rate_limited.candidates(rate_limited.portraits(images))
    first = rate_limited.curate(candidates)
    assert first.status == 0, first.err
    check_rate(rate_limited, images, capfd)
    ledger = rate_limited.out / "ledger.sqlite3"
    assert ledger_ids(ledger) == rate_limited.billed_ids()
    assert len(rate_limited.billed_ids()) == images
    assert first.manifest["run_cost_usd"] == {"billed": pytest.approx(images * PRICE_USD), "unknown": 0.0}
    assert first.verdicts["run_cost_usd"].sum() == pytest.approx(images * PRICE_USD)

    for out in (rate_limited.out, rate_limited.folder / "elsewhere"):
        monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", rate_limited.emulator.base_url)
        again = command(*rate_limited.curating(candidates, "--ledger", f"sqlite:///{ledger}", out=out))
        assert again.status == 0, again.err
        assert again.run_dir != first.run_dir
        assert again.verdicts.select(SAME).equals(first.verdicts.select(SAME))
        assert again.verdicts["from_ledger"].all()
        assert again.verdicts["attempts"].sum() == 0
        assert again.verdicts["run_cost_usd"].sum() == 0
        assert again.manifest["run_cost_usd"] == {"billed": 0.0, "unknown": 0.0}
        assert again.manifest["dataset_cost_usd"] == pytest.approx(images * PRICE_USD)
        assert pointer(out).run_id == again.manifest["run_id"]
    assert rate_limited.received() == images + rate_limited.emulator.calls()["throttled"]


@pytest.mark.slow
def test_three_hundred_images_keep_the_rate(rate_limited: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """A minute at 5 a second: all admitted, never six in a second."""
    ran = rate_limited.curate(rate_limited.candidates(rate_limited.portraits(300)))
    assert ran.status == 0, ran.err
    check_rate(rate_limited, 300, capfd)
    assert ledger_ids(rate_limited.out / "ledger.sqlite3") == rate_limited.billed_ids()


def test_the_published_file_is_what_the_pointer_says(in_process: Bench, command: Callable[..., Ran]) -> None:
    """A reader of the pointer finds the approved rows, their hash and their number."""
    bench = in_process
    urls = [bench.url(0), bench.url(1, "crowd"), bench.url(2), bench.url(3)]
    ran = command(*bench.curating(bench.candidates(urls)))
    assert ran.status == 0, ran.err
    published = pointer(bench.out)
    approved = pl.read_parquet(published.path)
    assert approved["image_url"].to_list() == [urls[0], urls[2], urls[3]]
    assert published.rows == 3
    with open(published.path, "rb") as file:  # noqa: PTH123
        assert published.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    assert published.gate.pass_rate == 0.75
    assert ran.manifest["files"]["approved.parquet"] == published.sha256


@pytest.mark.ci
def test_a_published_run_ends_with_0_even_if_its_report_has_no_reader(bench: Bench) -> None:
    """Standard output is a closed pipe and the encoding lacks the bars: the result stands."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [*COMMAND, *map(str, bench.curating(bench.candidates(bench.portraits(2))))]
    ran = subprocess.run(
        arguments, env={**bench.env, "PYTHONIOENCODING": "latin-1"}, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert ran.returncode == 0, ran.stderr
    assert pointer(bench.out).rows == 2
