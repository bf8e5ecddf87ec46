"""Stage 2 rules: statuses, sides, troubles."""

import pytest

from s2v_tasks.headers import Header
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.screen import (
    LATE_RETRY,
    REASON_OF_TROUBLE,
    REASONS,
    UNREACHABLE,
    Trouble,
    judge,
    judge_status,
)


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (400, 400, None),
        (7000, 7000, None),
        (400, 7000, None),
        (399, 400, "too_small"),
        (400, 399, "too_small"),
        (7001, 7000, "too_large"),
        (7000, 7001, "too_large"),
        (399, 7001, "too_small"),
    ],
)
def test_a_side_at_the_limit_is_kept(width: int, height: int, reason: str | None) -> None:
    """Sides of exactly 400 and 7000 are never refused for free; a pixel beyond is."""
    assert judge(Header("png", width, height), WAN22_S2V_DETECT) == reason


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, "not_found") for status in (404, 410)),
        *((status, "look") for status in (200, 206)),
        *((status, "keep") for status in (401, 403, 405, 408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, "keep") for status in (204, 300, 304, 400, 402, 406, 416, 418, 451, 999)),
    ],
)
def test_only_a_missing_picture_is_refused_by_status(status: int, meaning: str) -> None:
    """Hosts that refuse us may serve the detector, so every other status keeps the picture."""
    assert judge_status(status) == meaning


def test_every_trouble_has_a_reason_from_the_closed_sets() -> None:
    """Whatever is in the way ends in a reason that counts as unreachable."""
    assert set(REASON_OF_TROUBLE) == set(Trouble)
    assert set(REASON_OF_TROUBLE.values()) | {"not_found"} == UNREACHABLE
    assert UNREACHABLE < REASONS
    assert {trouble for trouble, reason in REASON_OF_TROUBLE.items() if reason == "timeout"} == LATE_RETRY
