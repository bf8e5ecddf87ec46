"""The estimate: what is counted, what is guessed, and that the guess holds as often as it says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.estimate import Estimate, Span, headline, kept_of, lines, markdown, needs_approval, wilson


def made(**changed: object) -> Estimate:
    """An estimate of 1,000 rows, of which 800 are left and 200 were looked at."""
    facts: dict[str, object] = {
        "rows": 1000, "refused": 50, "duplicates": 100, "known": 50, "left": 800, "sampled": 200,
        "sampled_out": 40, "price_micro_usd": 574, "rate_per_s": 5.0,
    }  # fmt: skip
    return Estimate(**{**facts, **changed})  # type: ignore[arg-type]


def test_wilson_is_the_published_one() -> None:
    """The textbook's value for 10 of 100 at 95 %: 0.0552 to 0.1744."""
    share = wilson(10, 100)
    assert (round(share.low, 4), round(share.high, 4)) == (0.0552, 0.1744)


def test_a_whole_sample_leaves_nothing_to_guess() -> None:
    """When every picture was looked at, both ends are what was seen."""
    assert kept_of(200, 200, 150) == Span(150, 150)
    assert kept_of(0, 0, 0) == Span(0, 0)


def test_without_a_sample_all_is_possible() -> None:
    """Nothing seen, nothing known: from none to all."""
    assert kept_of(800, 0, 0) == Span(0, 800)


@given(st.data())
def test_an_interval_stays_within_what_is_possible(data: st.DataObject) -> None:
    """Never fewer than were seen to be kept, never more than are left; the sample's own share lies inside."""
    left = data.draw(st.integers(1, 10**7))
    sampled = data.draw(st.integers(0, min(left, 10_000)))
    kept = data.draw(st.integers(0, sampled))
    span = kept_of(left, sampled, kept)
    assert kept <= span.low <= span.high <= left - (sampled - kept)
    if sampled:
        assert span.low - 1 <= left * kept / sampled <= span.high + 1


@pytest.mark.parametrize(("left", "sampled"), [(300, 200), (1_000, 200), (100_000, 200)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.98])
def test_the_interval_holds_in_19_of_20_cases(left: int, sampled: int, share: float) -> None:
    """Over 1,000 seeded samples without return, the true number lies in the interval in at least 93 %."""
    draw = random.Random(f"{left} {share}")  # noqa: S311  (repeatable, nothing secret)
    true = round(left * share)
    held = 0
    for _ in range(1_000):
        kept = sum(number < true for number in draw.sample(range(left), sampled))
        span = kept_of(left, sampled, kept)
        held += span.low <= true <= span.high
    assert held >= 930


def test_money_time_and_the_stage_behind_follow_from_the_pictures() -> None:
    """Every picture at its price, at the account's rate, and at the price of a ten-second clip."""
    estimate = made(left=18_000, sampled=0, sampled_out=0, is_screened=False)
    assert estimate.to_pay == Span(18_000, 18_000)
    assert estimate.cost_usd.high == pytest.approx(10.332)
    assert estimate.hours.high == pytest.approx(1.0)
    assert estimate.clips_usd("480P").high == pytest.approx(18_000 * 0.71677)
    assert estimate.clips_usd("720P").high == pytest.approx(18_000 * 1.29018)


def test_the_budget_is_the_most_that_is_spent() -> None:
    """What it does not reach stays unspent, and the estimate says so."""
    short = made(budget_images=100)
    assert (short.paid, short.is_short) == (Span(100, 100), True)
    assert short.cost_usd.high == pytest.approx(0.0574)
    assert ("the budget reaches", "100 of them") in lines(short)
    assert not made(budget_images=10**6).is_short


def test_approval_goes_by_the_upper_end() -> None:
    """Over the amount a person is asked; at it, or without an amount, nobody is."""
    estimate = made()
    high = estimate.cost_usd.high
    assert needs_approval(estimate, high - 1e-9)
    assert not needs_approval(estimate, high)
    assert not needs_approval(estimate, None)
    assert not needs_approval(made(budget_images=1), 0.001)


def test_it_reads_as_a_table_and_as_a_line() -> None:
    """Rows, then the way they take, then money, time and the stage behind."""
    found = dict(lines(made(sampled=800, sampled_out=160)))
    assert found["rows"] == "1,000"
    assert found["screened out for free"] == "160 (160 of 800 looked at)"
    assert found["pictures to pay for"] == "640"
    assert found["cost, USD"] == "0.3674"
    assert found["time"] == "2 min at 5 calls a second"
    assert "0 (not screened)" in dict(lines(made(is_screened=False))).values()
    assert headline(made(sampled=800, sampled_out=160)) in markdown(made(sampled=800, sampled_out=160))
    assert " to " in headline(made())
