"""The money rules, without a database."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.domain.ledger import (
    CHARGED,
    TRANSITIONS,
    ImageStatus,
    State,
    images_bought,
    is_success,
    lost_verdict,
    settled_state,
    skipped_verdict,
    usd,
    verdict_of,
)
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, Outcome
from s2v_tasks.settings import OnLostResponse

PRICE = WAN22_S2V_DETECT.price_micro_usd


@given(st.integers(0, 10**8))
def test_a_budget_of_k_prices_buys_k_images(k: int) -> None:
    """Written in decimals, as a person writes it, and a hair less buys one image less."""
    written = Decimal("0.000574") * k
    assert images_bought(float(written), PRICE) == k
    if k:
        assert images_bought(float(written - Decimal("0.000001")), PRICE) == k - 1


@given(st.decimals(min_value=0, max_value=10**6, places=6, allow_nan=False))
def test_a_budget_is_never_passed_and_never_left_unused(budget: Decimal) -> None:
    """What it buys costs at most the budget, and one image more would cost more."""
    bought = images_bought(float(budget), PRICE)
    assert bought * Decimal("0.000574") <= budget < (bought + 1) * Decimal("0.000574")


@pytest.mark.parametrize(
    ("budget_usd", "images"),
    [
        (1e-9, 0),
        (0.0, 0),
        (0.000573, 0),
        (0.000574, 1),
        (0.0011479, 1),
        (50 * 0.000574, 50),
        (100 * 0.000574, 100),
        (0.3, 522),
        (1, 1742),
        (574, 1_000_000),
        (574.0, 1_000_000),
    ],
)
def test_images_bought_by_some_budgets(budget_usd: float, images: int) -> None:
    """Figures computed by hand; whole numbers are amounts too."""
    assert images_bought(budget_usd, PRICE) == images


@pytest.mark.parametrize("budget_usd", [1e16, 1e23, 1e300])
def test_a_budget_beyond_measure_is_as_good_as_none(budget_usd: float) -> None:
    """It fits the database's integers instead of crashing a run."""
    assert 10**18 < images_bought(budget_usd, PRICE) < 2**63


def test_amounts_come_back_in_dollars() -> None:
    """The ledger's unit is a millionth."""
    assert usd(574) == 0.000574
    assert usd(0) == 0.0


def test_the_moves_of_an_attempt() -> None:
    """A known response is final; a lost one may still come; nothing goes back to reserved."""
    r, b, n, u = State.RESERVED, State.BILLED, State.NOT_BILLED, State.UNKNOWN
    assert {(r, b), (r, n), (r, u), (u, b), (u, n)} == TRANSITIONS


def test_only_what_is_known_to_be_free_does_not_count() -> None:
    """What is under way and what was lost counts at full price."""
    assert set(State) - CHARGED == {State.NOT_BILLED}


@pytest.mark.parametrize(
    ("billing", "state"),
    [
        (Billing.BILLED, State.BILLED),
        (Billing.NOT_BILLED, State.NOT_BILLED),
        (Billing.UNKNOWN, State.UNKNOWN),
    ],
)
def test_a_response_settles_its_attempt(billing: Billing, state: State) -> None:
    """The three ways an attempt ends are the response's three kinds of billing."""
    assert settled_state(DetectResponse(Kind.TRANSIENT, billing)) is state


@pytest.mark.parametrize(
    ("on_lost_response", "lost", "exhausted"),
    [
        ("retry", 0, False),
        ("retry", 1, False),
        ("retry", 2, True),
        ("retry", 3, True),
        ("assume-paid", 0, False),
        ("assume-paid", 1, True),
    ],
)
def test_how_many_lost_responses_end_the_sending(
    on_lost_response: OnLostResponse, lost: int, exhausted: bool
) -> None:
    """Two by default, one for those who assume that it was paid; what has a verdict is not lost."""
    assert ImageStatus("k", lost=lost).is_exhausted(on_lost_response) is exhausted
    known = ImageStatus("k", verdict=lost_verdict("k"), lost=lost)
    assert not known.is_exhausted(on_lost_response)


def test_a_verdict_carries_the_whole_response() -> None:
    """Everything the vendor said goes into the row of the image."""
    response = DetectResponse(
        Kind.VERDICT, Billing.BILLED, "face_pose", False, True, "InvalidFile.FacePose", "turn", "r", 200
    )
    verdict = verdict_of("k", response)
    assert (verdict.image_key, verdict.outcome, verdict.reason) == ("k", Outcome.FAILED, "face_pose")
    assert (verdict.check_pass, verdict.humanoid, verdict.code) == (False, True, "InvalidFile.FacePose")
    assert (verdict.message, verdict.request_id, verdict.http_status) == ("turn", "r", 200)
    assert verdict.billing is Billing.BILLED


def test_a_lost_response_has_one_reason() -> None:
    """Whichever way it was lost, so that a gate can count it."""
    gateway = DetectResponse(Kind.TRANSIENT, Billing.UNKNOWN, "service_error", http_status=504)
    for verdict in (verdict_of("k", gateway), lost_verdict("k")):
        assert (verdict.outcome, verdict.reason, verdict.billing) == (
            Outcome.UNKNOWN,
            "response_lost",
            Billing.UNKNOWN,
        )


def test_an_image_not_sent_costs_nothing() -> None:
    """Skipped, with the reason why."""
    verdict = skipped_verdict("k", "budget_exhausted")
    assert (verdict.outcome, verdict.reason, verdict.billing) == (
        Outcome.SKIPPED,
        "budget_exhausted",
        Billing.NONE,
    )
    assert verdict.run_cost_micro_usd == 0


def test_a_response_about_an_image_shows_that_the_service_works() -> None:
    """Bad images in a row are no outage; throttles and errors may be one."""
    assert {k for k in Kind if is_success(DetectResponse(k, Billing.NOT_BILLED))} == {
        Kind.VERDICT,
        Kind.IMAGE,
        Kind.ORIGIN,
    }
