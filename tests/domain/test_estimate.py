"""The estimate: what is counted, what is guessed, and that the guess holds as often as it says."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.estimate import (
    Estimate,
    headline,
    kept_span,
    key_warning,
    lines,
    markdown,
    needs_approval,
)
from s2v_tasks.domain.face_estimate import SampledFaces
from s2v_tasks.domain.interval import Span, wilson


def made(**changed: object) -> Estimate:
    """An estimate of 1,000 rows, of which 800 remain and 200 were sampled."""
    facts: dict[str, object] = {
        "rows": 1000, "rejected": 50, "duplicates": 100, "already_checked": 50, "remaining": 800,
        "sampled": 200, "sampled_out": 40, "price_micro_usd": 574, "rate_per_s": 5.0,
    }  # fmt: skip
    return Estimate(**{**facts, **changed})  # type: ignore[arg-type]


def test_wilson_is_the_published_one() -> None:
    """The textbook's value for 10 of 100 at 95 %: 0.0552 to 0.1744."""
    share = wilson(10, 100)
    assert (round(share.low, 4), round(share.high, 4)) == (0.0552, 0.1744)


def test_a_whole_sample_leaves_nothing_to_guess() -> None:
    """When every image was sampled, both ends are what was seen."""
    assert kept_span(200, 200, 150) == Span(150, 150)
    assert kept_span(0, 0, 0) == Span(0, 0)


def test_without_a_sample_all_is_possible() -> None:
    """Nothing seen, nothing known: from none to all."""
    assert kept_span(800, 0, 0) == Span(0, 800)


@given(st.data())
def test_an_interval_stays_within_what_is_possible(data: st.DataObject) -> None:
    """Never fewer than were seen to be kept, never more than are left; the sample's own share lies inside."""
    left = data.draw(st.integers(1, 10**7))
    sampled = data.draw(st.integers(0, min(left, 10_000)))
    kept = data.draw(st.integers(0, sampled))
    span = kept_span(left, sampled, kept)
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
        span = kept_span(left, sampled, kept)
        held += span.low <= true <= span.high
    assert held >= 930


def test_money_time_and_the_downstream_stage_follow_from_the_images() -> None:
    """Every image at its price, at the account's rate, and at the price of a ten-second clip."""
    estimate = made(remaining=18_000, sampled=0, sampled_out=0, is_screened=False)
    assert estimate.to_pay == Span(18_000, 18_000)
    assert estimate.run_cost_usd.high == pytest.approx(10.332)
    assert estimate.hours.high == pytest.approx(1.0)
    assert estimate.clips_usd("480P").high == pytest.approx(18_000 * 0.71677)
    assert estimate.clips_usd("720P").high == pytest.approx(18_000 * 1.29018)


def test_the_budget_is_the_most_that_is_spent() -> None:
    """What it does not reach stays skipped, and the estimate says so."""
    short = made(budget_images=100)
    assert (short.paid, short.is_short) == (Span(100, 100), True)
    assert short.run_cost_usd.high == pytest.approx(0.0574)
    assert ("the budget reaches", "100 of them") in lines(short)
    assert not made(budget_images=10**6).is_short


def test_approval_goes_by_the_upper_end() -> None:
    """Above the amount a person must approve; at it, or without an amount, none must."""
    estimate = made()
    high = estimate.run_cost_usd.high
    assert needs_approval(estimate, high - 1e-9)
    assert not needs_approval(estimate, high)
    assert not needs_approval(estimate, None)
    assert not needs_approval(made(budget_images=1), 0.001)


def test_it_reads_as_a_table_and_as_a_line() -> None:
    """Rows, then the way they take, then money, time and the downstream stage."""
    found = dict(lines(made(sampled=800, sampled_out=160)))
    assert found["rows"] == "1,000"
    assert found["screened out for free"] == "160 (160 of 800 sampled)"
    assert found["images to pay for"] == "640"
    unreachable = made(sampled=800, sampled_out=800, reasons=(("no_such_host", 797), ("timeout", 3)))
    rows = dict(lines(unreachable))
    assert (rows["    no_such_host"], rows["    timeout"]) == ("797 of 800", "3 of 800")
    assert found["cost, USD"] == "0.3674"
    assert found["time"] == "2 min at 5 calls a second"
    assert "0 (not screened)" in dict(lines(made(is_screened=False))).values()
    assert headline(made(sampled=800, sampled_out=160)) in markdown(made(sampled=800, sampled_out=160))
    assert " to " in headline(made())


@pytest.mark.parametrize(
    ("key", "images", "message"),
    [
        ("st-abc", 300, None),
        ("st-abc", 301, "may expire"),
        ("st-abc", 9_000, "may expire"),
        ("st-abc", 9_001, "will expire"),
        ("sk-abc", 10**6, None),
        ("sk-ws-abc", 10**6, None),
    ],
)
def test_a_temporary_key_is_warned_of_before_a_run_that_outlasts_it(
    key: str, images: int, message: str | None
) -> None:
    """It lives 60 to 1,800 s: at 5 calls a second, 300 to 9,000 images. The key itself is not shown."""
    said = key_warning(key, images, 5.0)
    assert (said is None) == (message is None)
    if said is not None and message is not None:
        assert message in said
        assert "abc" not in said


def ordering(**changed: Any) -> SampledFaces:
    """Of 800 images 200 have one face; the gate wants half to pass, and a missed share of at most 5 %."""
    given = {"examined": 800, "none": 600, "single": 200, "several": 0, "segments": 1, "choice": "order"}
    limits = {"max_missed_share": 0.05, "min_pass_rate": 0.5}
    return SampledFaces(**{**given, **limits, **changed})


def test_the_face_check_brings_more_for_the_same_calls() -> None:
    """With a budget that does not reach; the random sample takes its part of them, that of each segment."""
    estimate = made(sampled=800, sampled_out=0, budget_images=400, faces=ordering())
    spans = estimate.with_faces()
    assert spans["audit"] == Span(80, 80)  # 60 of the first 200, and a tenth of the others
    assert spans["single_off"].low < 100 < spans["single_off"].high < 120
    assert 150 < spans["single_order"].low < 200 < spans["single_order"].high < 240
    assert ordering(segments=3).audit(400) == pytest.approx(120)
    assert any("--faces order" in label for label, _ in lines(estimate))
    assert "audit" in estimate.figures()
    assert "audit" not in made().figures()


def test_without_a_budget_both_orders_check_all_images() -> None:
    """Then the order changes nothing."""
    spans = made(sampled=800, sampled_out=0, faces=ordering()).with_faces()
    assert spans["single_order"] == spans["single_off"]


def dropping(**changed: Any) -> SampledFaces:
    """Of 800 images 400 have no face and 100 several; the run drops the first."""
    given = {"none": 400, "single": 300, "several": 100, "choice": "drop"}
    return ordering(**{**given, **changed})


def test_what_drop_saves_is_what_is_dropped_and_not_sampled() -> None:
    """The proof takes 130 passed images: as many checks where all pass, 260 where half do; it may fail."""
    whole = {"remaining": 4_000, "sampled": 4_000, "sampled_out": 0}
    known = made(**whole, faces=dropping()).with_faces()
    share = wilson(400, 800)
    # A tenth of the calls is the sample's, after the first 200: 60 + 0.1 * (4,000 * share - 200).
    least, most = (60 + 0.1 * (4_000 * (1 - end) - 200) for end in (share.high, share.low))
    assert known["audit"] == Span(pytest.approx(max(130, least)), pytest.approx(max(260, most)))
    assert known["dropped"] == Span(0, pytest.approx(share.high * (4_000 - known["audit"].low)))
    assert known["saved_calls"] == Span(0, pytest.approx(known["dropped"].high))
    both = made(**whole, faces=dropping(choice="drop_several")).with_faces()
    assert both["dropped"].high > known["dropped"].high
    said = dict(lines(made(**whole, faces=dropping())))
    assert said["dropped by --faces drop"].endswith("(400 of 800 sampled)")
    assert said["    calls that it saves"].startswith("up to 2,0")
    assert said["    calls of the random sample"] == f"{least:.0f} to 260, or more"
    assert said["    allowed by --max-missed-share"] == "5.0% of all that would pass"
    assert {"dropped", "saved_calls"} <= made(**whole, faces=dropping()).figures().keys()


@pytest.mark.parametrize(
    ("images", "more", "budget", "label"),
    [
        (200, {}, None, "    nothing dropped: the proof takes"),
        (4_000, {"max_missed_share": 0.001}, None, "    nothing dropped: the proof takes"),
        (4_000, {}, 300, "    the budget ends before the proof"),
    ],
)
def test_an_estimate_says_where_drop_saves_nothing(
    images: int, more: dict[str, float], budget: int | None, label: str
) -> None:
    """Where the proof would check most images, and where the budget ends before it."""
    counts = {"remaining": images, "sampled": images, "sampled_out": 0, "budget_images": budget}
    estimate = made(**counts, faces=dropping(**more))
    assert estimate.with_faces()["saved_calls"] == Span(0, 0)
    assert label in dict(lines(estimate))
    assert all(len(label) + len(value) < 76 for label, value in lines(estimate)), "it fits a terminal"


def test_what_no_face_was_examined_for_is_not_known() -> None:
    """The threshold is said all the same: it is what a person approves."""
    said = dict(lines(made(faces=dropping(examined=0, single=0, none=0, several=0))))
    assert said["dropped by --faces drop"] == "not known: no faces were examined"
    assert said["    allowed by --max-missed-share"].startswith("5.0%")
    assert "images with one face" not in " ".join(said)
    assert "--faces" not in " ".join(dict(lines(made(faces=dropping(examined=0, choice="order")))))
