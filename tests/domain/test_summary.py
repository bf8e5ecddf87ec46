"""The summary of a run: its funnel, what its face check did not check, and the hosts that it names."""

from typing import Any

import made_run
import polars as pl
import pytest
from made_run import row

from s2v_tasks.domain import funnel
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.summary import (
    ORIGIN_FAILED,
    WEB_PAGE,
    Summary,
    hosts_of,
    markdown,
    summarize,
    tallies_of,
)
from s2v_tasks.domain.verdict_table import SCHEMA

NOTHING = tallies_of(pl.DataFrame(schema=SCHEMA).lazy()).collect()


def test_the_hosts_of_web_pages_and_failed_fetches_are_named_without_their_urls() -> None:
    """Most frequent first, ten at most; letter case, ports, queries and other reasons don't matter."""
    pages = [
        "https://A.example/1?sig=sesame",
        "http://a.example:8080/2",
        "https://[::1]/3",
        "https://b.example",
    ]
    pages += [f"https://h{n}.example/" for n in range(20)]
    failed = [
        "https://[x?sig=sesame]/",
        "https://far.example%3Fsig=sesame",
        "https://user:sesame@far.example/3.jpg",
        "http://FAR.example:8080/2.jpg",
    ]
    reasons = [WEB_PAGE] * 24 + [ORIGIN_FAILED] * 4 + ["not_found"]
    frame = pl.DataFrame({"url": [*pages, *failed, "https://c.example/"], "reason": reasons})
    summary = summarize(NOTHING, hosts_of(frame.lazy()).collect())
    assert summary.host_list(WEB_PAGE).startswith("a.example (2), [::1] (1), b.example (1), ")
    assert summary.host_list(WEB_PAGE).count("(") == 10
    assert summary.host_list(ORIGIN_FAILED) == "far.example (2)"
    text = markdown(summary, "headline", gate="gate", rate="rate")
    assert "Web pages instead of images** from a.example (2)" in text
    assert "Not fetched by the vendor** far.example (2)" in text
    assert "sesame" not in text


def test_a_summary_without_such_rows_names_no_host() -> None:
    """No empty headings."""
    text = markdown(summarize(NOTHING), "headline", gate="", rate="")
    assert "Web pages" not in text
    assert "Not fetched" not in text


def test_the_table_by_source_is_below_the_gate() -> None:
    """Only where there is one."""
    text = markdown(summarize(NOTHING), "headline", gate="closed", rate="", sources="| host |\n")
    assert "**closed**\n\n**By source**, most waste first\n\n| host |\n" in text
    assert "By source" not in markdown(summarize(NOTHING), "headline", gate="closed", rate="")


def test_the_comparison_with_the_last_publications_is_below_it() -> None:
    """Only where there is one."""
    compared = markdown(summarize(NOTHING), "headline", gate="", rate="5", compared="| overall |\n")
    assert "**Compared with the last publications**\n\n| overall |\n\n**Rate** 5" in compared
    assert "Compared" not in markdown(summarize(NOTHING), "headline", gate="", rate="")


def summary_of(*rows: dict[str, Any], segment_column: str | None = "source") -> Summary:
    return summarize(tallies_of(made_run.verdicts(*rows).lazy(), segment_column).collect())


def images(count: int, outcome: str, reason: str | None = None, **more: Any) -> list[dict[str, Any]]:
    """Rows of as many images, in a run with a random sample."""
    more = {"audited": False, "audited_in_run": False} | more
    return [
        row("a.example", more.pop("source", "web"), outcome, reason=reason, **more, image_key="k")
    ] * count


SAMPLED: dict[str, Any] = {"audited": True, "audited_in_run": True}
CHECKED = [
    *images(130, "passed", faces_seen=1, **SAMPLED),
    *images(2, "passed", faces_seen=0, **SAMPLED),
    *images(50, "failed", "no_human", faces_seen=0, **SAMPLED),
    *images(300, "passed", faces_seen=1),
]
DROPPED = images(40, "screened_out", "no_face", faces_seen=0)
HOPELESS = [
    *images(5, "skipped", "hopeless"),
    *images(3, "skipped", "hopeless", source="https://b.example/list?key=sesame"),
]


def test_each_row_is_in_one_step_of_the_funnel() -> None:
    """What the face check dropped is apart from the screen's, and what is hopeless from the budget's."""
    screened = [*images(2, "screened_out", "too_small"), *images(1, "screened_out", "several_faces")]
    skipped, lost = images(7, "skipped", "budget_exhausted"), images(1, "unknown", "response_lost")
    found = summary_of(*CHECKED, *DROPPED, *HOPELESS, *screened, *skipped, *lost, *images(4, "duplicate"))
    steps = {step.key: step for step in found.steps}
    assert {key: steps[key].rows for key in (*funnel.UNCHECKED, *funnel.ENDS)} == {
        "duplicate": 4, "screened_out": 2, "dropped": 41, "passed": 432, "failed": 50, "error": 0,
        "unknown": 1, "skipped": 7, "hopeless": 8,
    }  # fmt: skip
    assert sum(steps[key].rows for key in (*funnel.UNCHECKED, *funnel.ENDS)) == found.rows
    assert steps["dropped"].reasons == (("no_face", 40), ("several_faces", 1))
    assert steps["screened_out"].reasons == (("too_small", 2),)
    assert steps["hopeless"].reasons == steps["unknown"].reasons == ()
    assert (found.screened_out, found.skipped, found.left_over, found.hopeless) == (43, 15, 7, 8)
    shown = markdown(found, "headline", gate="", rate="")
    assert "| screened out for free | 2 |\n| dropped by the face check | 41 |\n" in shown
    assert "| skipped | 7 |\n| left out as hopeless | 8 |\n" in shown
    none = markdown(summary_of(*CHECKED), "headline", gate="", rate="")
    assert "dropped by the face check" not in none
    assert "hopeless" not in none


@pytest.mark.parametrize(
    ("key", "outcome", "reasons", "own"),
    [
        ("dropped", "screened_out", ["too_small", "no_face"], ["no_face"]),
        ("screened_out", "screened_out", ["too_small", "no_face"], ["too_small"]),
        ("screened_out", "screened_out", ["too_small"], []),
        ("hopeless", "skipped", ["hopeless"], ["hopeless"]),
        ("skipped", "skipped", ["hopeless", "run_stopped"], ["run_stopped"]),
        ("passed", "passed", [], []),
    ],
)
def test_the_rows_of_a_step_are_found_by_outcome_and_reason(
    key: str, outcome: str, reasons: list[str], own: list[str]
) -> None:
    """Reasons are named only where other rows have the same outcome."""
    assert (funnel.outcome_of(key), funnel.own_reasons(key, reasons)) == (outcome, own)


def test_what_was_not_checked_stands_with_its_proof_and_its_threshold() -> None:
    """Only the run's sample proves; hopeless images are named by segment, and are not in the bound."""
    faces = summary_of(*CHECKED, *DROPPED, *HOPELESS).faces
    assert faces is not None
    upper = Tally(2, 130).bounds.high
    said = dict(faces.lines(0.05))
    assert said["face check"].startswith("40 images dropped (no_face 40); 182 checked as a random sample")
    assert said["missed"] == (
        f"at most {upper:.1%} of all that would pass (the gate allows 5.0%): the rules would have dropped 2"
        " of 132 passed images of the whole run's random sample"
    )
    assert said["hopeless"] == (
        "8 images of 2 segments (web 5, https://b.example/list?... 3) not checked: the pass rate can't reach"
        " what the gate wants; good ones among them are not in the missed share"
    )
    assert faces.figures(0.05) == {
        "dropped": 40, "no_face": 40, "sampled": 182, "sampled_passed": 132, "sampled_missed": 2,
        "missed_share_upper": upper, "max_missed_share": 0.05, "hopeless": 8, "hopeless_segments": 2,
    }  # fmt: skip
    shown = markdown(summary_of(*CHECKED, *DROPPED), "", gate="", rate="", max_missed_share=0.05)
    assert "**Face check** 40 images dropped (no\\_face 40)" in shown
    assert f"at most {upper:.1%} of all" in shown


def test_a_run_that_dropped_nothing_has_no_bound_and_one_without_a_sample_says_nothing() -> None:
    """Without a segment column the hopeless images have no segment."""
    faces = summary_of(*CHECKED, *HOPELESS, segment_column=None).faces
    assert faces is not None
    assert [label for label, _ in faces.lines(0.05)] == ["face check", "hopeless"]
    assert faces.lines(0.05)[0][1].startswith("no image dropped; 182 checked")
    assert faces.lines(0.05)[1][1].startswith("8 images not checked")
    assert "missed share" not in faces.lines(0.05)[1][1]
    plain = summary_of(row("a.example", "web", "passed", 1, image_key="k"))
    assert plain.faces is None
    assert "Face check" not in markdown(plain, "", gate="", rate="")
