"""Stage 7: only an open gate publishes, and never a run that started earlier than the published one."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from s2v_tasks.domain.publish_rules import GateSummary, Publication, may_publish, summary, supersedes
from s2v_tasks.models import Expectation, Facts, GateReport

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
FACTS = Facts("overall", None, 4, 4, 3, 1, 0, 0, 0, 0, 0, 4, 0.75, 0.0, 0.0, 0.0, 0.0, 0.002, 0.002, 0.001)


def publication(started: datetime, run_id: str = "a") -> Publication:
    gate = GateSummary(checked_at=NOON.isoformat(), expectations=2, pass_rate=0.75)
    return Publication(
        run_id=run_id, started_at=started.isoformat(), path="p", rows=3, sha256="0", run_cost_usd=0.0,
        dataset_cost_usd=0.0, gate=gate,
    )  # fmt: skip


@pytest.mark.parametrize("is_open", [True, False])
def test_only_an_open_gate_publishes(is_open: bool) -> None:
    """The report decides, whatever its expectations say one by one."""
    report = GateReport(is_open, (Expectation("gate", "n", True, "1", "1"),), (FACTS,), NOON)
    assert may_publish(report) is is_open


def test_the_pointer_says_when_and_how_well_the_gate_was_passed() -> None:
    """The overall facts, not those of a segment."""
    report = GateReport(True, (Expectation("gate", "n", True, "1", "1"),) * 2, (FACTS, FACTS), NOON)
    assert summary(report) == GateSummary(
        checked_at="2026-05-01T12:00:00+00:00", expectations=2, pass_rate=0.75
    )


times = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1)).map(  # noqa: DTZ001
    lambda when: when.replace(tzinfo=UTC)
)


@given(times, times)
def test_a_later_start_supersedes_whatever_its_fraction(first: datetime, second: datetime) -> None:
    """Times compare as times, also when one of them fell on a whole second."""
    assert supersedes(publication(second), publication(first)) is (second >= first)


def test_the_first_publication_and_the_same_run_again_may_publish() -> None:
    """Without a publication any may follow; a run may be published again by other thresholds."""
    assert supersedes(publication(NOON), None)
    assert supersedes(publication(NOON), publication(NOON))


def test_a_publication_is_not_changed() -> None:
    """The record is frozen."""
    with pytest.raises(ValidationError):
        publication(NOON + timedelta(1)).rows = 1
