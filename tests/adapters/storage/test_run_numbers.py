"""Run numbers: an order of runs that no clock decides."""

from concurrent.futures import ThreadPoolExecutor

from s2v_tasks.adapters.storage import pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.run_numbers import take_number
from s2v_tasks.domain.publish_rules import GateSummary, Publication


def publication(number: int, started_at: str, run_id: str = "a") -> Publication:
    gate = GateSummary(checked_at=started_at, expectations=1, pass_rate=1.0)
    return Publication(
        number=number, run_id=run_id, started_at=started_at, path="p", rows=1, sha256="0", run_cost_usd=0.0,
        dataset_cost_usd=0.0, gate=gate,
    )  # fmt: skip


def test_numbers_increase_and_no_two_runs_have_the_same(any_out: StoragePath) -> None:
    """Runs that open at once each get one of their own, without a gap that matters."""
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda run: take_number(any_out, f"run-{run}"), range(12)))
    assert sorted(taken) == list(range(1, 13))
    assert take_number(any_out, "later") == 13


def test_the_pointers_number_counts_where_the_others_were_not_copied(any_out: StoragePath) -> None:
    """A copy of the folder without its hidden files goes on above what is published."""
    assert pointer.move(any_out, publication(7, "2026-01-01T00:00:00+00:00"))
    assert take_number(any_out, "copied") == 8


def test_a_run_under_a_wrong_clock_stops_no_later_publication(any_out: StoragePath) -> None:
    """Ten days ahead, it publishes; the next run, with an earlier start, replaces it; never the reverse."""
    ahead, now = "2026-12-06T00:00:00+00:00", "2026-11-26T00:00:00+00:00"
    assert pointer.move(any_out, publication(0, ahead, "of before"))
    assert pointer.move(any_out, publication(1, ahead, "ahead"))
    assert pointer.move(any_out, publication(2, now, "later"))
    assert not pointer.move(any_out, publication(1, ahead, "ahead"))
    assert not pointer.move(any_out, publication(0, ahead, "of before"))
    found = pointer.read(any_out)
    assert found is not None
    assert (found.number, found.run_id) == (2, "later")
