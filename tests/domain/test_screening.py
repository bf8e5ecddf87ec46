"""Screening rules: sides, and the one reason of what was fetched."""

import pytest

from s2v_tasks.domain.fetched import FetchedHeader
from s2v_tasks.domain.image_header import ImageHeader, NotAnImage
from s2v_tasks.domain.screening import check_header, rejection_reason
from s2v_tasks.models import WAN22_S2V_DETECT


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
    """Sides of exactly 400 and 7000 are never rejected for free; a pixel beyond is."""
    assert check_header(ImageHeader("png", width, height), WAN22_S2V_DETECT) == reason


LARGE, SMALL, NONE = ImageHeader("png", 800, 600), ImageHeader("png", 8, 6), NotAnImage()


@pytest.mark.parametrize(
    ("fetched", "reason"),
    [
        (FetchedHeader(LARGE), None),
        (FetchedHeader(), None),
        (FetchedHeader(reason="not_found"), "not_found"),
        (FetchedHeader(SMALL, reason="opted_out", is_cut=True), "opted_out"),
        (FetchedHeader(NONE), "not_an_image"),
        (FetchedHeader(NONE, is_page=True), "web_page"),
        (FetchedHeader(LARGE, is_cut=True), "truncated"),
        (FetchedHeader(SMALL, is_cut=True), "too_small"),
    ],
)
def test_what_was_fetched_has_one_reason(fetched: FetchedHeader, reason: str | None) -> None:
    """The fetch's own comes first, then the header's, then the end of the file."""
    assert rejection_reason(fetched, WAN22_S2V_DETECT) == reason
