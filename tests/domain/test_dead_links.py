"""Dead links: what a status and a failed fetch mean."""

import pytest

from s2v_tasks.domain.dead_links import LATE_RETRY, REASON_OF_FAILURE, UNREACHABLE, FetchFailure, check_status
from s2v_tasks.domain.screening import REASONS


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, "not_found") for status in (404, 410)),
        *((status, "read") for status in (200, 206)),
        *((status, "keep") for status in (401, 403, 405, 408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, "keep") for status in (204, 300, 304, 400, 402, 406, 416, 418, 451, 999)),
    ],
)
def test_only_a_missing_image_is_rejected_by_status(status: int, meaning: str) -> None:
    """Hosts that refuse us may serve the detector, so every other status keeps the image."""
    assert check_status(status) == meaning


def test_every_failure_has_a_reason_from_the_closed_sets() -> None:
    """Whatever is in the way ends in a reason that counts as unreachable."""
    assert set(REASON_OF_FAILURE) == set(FetchFailure)
    lasting = {failure: reason for failure, reason in REASON_OF_FAILURE.items() if reason is not None}
    assert set(lasting.values()) | {"not_found", "web_page"} == UNREACHABLE
    assert set(REASON_OF_FAILURE) - set(lasting) == {FetchFailure.THROTTLED, FetchFailure.LOCAL}
    assert UNREACHABLE < REASONS
    timeouts = {failure for failure, reason in REASON_OF_FAILURE.items() if reason == "timeout"}
    assert timeouts | {FetchFailure.THROTTLED, FetchFailure.LOCAL} == LATE_RETRY
