"""Opt-out: which fields of ``X-Robots-Tag`` forbid the use of an image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.dead_links import GONE
from s2v_tasks.domain.opt_out import opted_out


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (["noai"], True),
        (["NoAI"], True),
        (["noimageai"], True),
        (["noindex, noai"], True),
        (["noindex; noai"], True),
        (["noindex", "noai"], True),
        (["*: noai"], True),
        (["s2v-tasks: noai"], True),
        (["S2V-Tasks : noindex, noai"], True),
        (["otherbot: noindex, s2v-tasks: noai"], True),
        (["max-image-preview: large, noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["noai, otherbot: noindex"], True),
        (["otherbot: noindex", "noai"], True),
        ([], False),
        ([""], False),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["googlebot: noai", "otherbot: noimageai"], False),
        (["noindex, noimageindex, nofollow, noarchive, none"], False),
        (["noaib"], False),
        (["no ai"], False),
    ],
)
def test_only_a_directive_for_us_opts_out(fields: list[str], wanted: bool) -> None:
    """Of all fields; a name before a colon is an agent's unless it is a directive with a value."""
    assert opted_out(200, fields) is wanted


@given(st.lists(st.text()))
def test_no_field_breaks_the_reader_of_directives(fields: list[str]) -> None:
    """Headers are hostile."""
    assert opted_out(200, [*fields, "noai"])


@pytest.mark.parametrize("status", sorted(GONE))
def test_a_dead_link_is_one_whatever_its_host_forbids(status: int) -> None:
    """Hosts send the header with every response."""
    assert not opted_out(status, ["noai"])
