"""The table of verdicts: every input row comes out once, with one outcome, whatever happened to its image."""

from collections import Counter
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks.domain import candidate_table
from s2v_tasks.domain.alternate_urls import INDEX_SCHEMA
from s2v_tasks.domain.conservation import check_conserved
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.passing_segments import approved
from s2v_tasks.domain.verdict_table import (
    CANONICAL_SCHEMA,
    CHECKED_SCHEMA,
    SCHEMA,
    SCREENED_SCHEMA,
    assemble,
    attach_screened,
    checked_frame,
    comparable,
    latest_results,
    outcomes,
    screened_frame,
)
from s2v_tasks.errors import DataIntegrityError
from s2v_tasks.models import Billing, Outcome, Screened, Verdict


def url(name: object) -> str:
    return f"http://images.test/{name}.jpg"


def screened_rows(
    urls: list[str | None],
    screened: list[Screened] | None = None,
    same: dict[str, str] | None = None,
    skipped: dict[str, int] | None = None,
) -> pl.LazyFrame:
    keyed = candidate_table.assign_keys(
        pl.LazyFrame({"image_url": pl.Series(urls, dtype=pl.String)}), "image_url"
    )
    canonical = pl.LazyFrame([*(same or {}).items()], schema=CANONICAL_SCHEMA, orient="row")
    unfetched = pl.LazyFrame([*(skipped or {}).items()], schema=INDEX_SCHEMA, orient="row")
    return attach_screened(keyed, screened_frame(screened or []).lazy(), canonical, skipped=unfetched)


def key(name: object) -> str:
    return image_key(url(name))


def passed(name: object, **more: object) -> Verdict:
    known = {"check_pass": True, "humanoid": True, "request_id": f"r-{name}", "http_status": 200}
    paid = {
        "attempts": 1,
        "run_cost_micro_usd": 574,
        "lifetime_cost_micro_usd": 574,
        "billing": Billing.BILLED,
    }
    return Verdict(key(name), Outcome.PASSED, **{**known, **paid, **more})  # type: ignore[arg-type]


def outcomes_of(
    urls: list[str | None],
    screened: list[Screened] | None = None,
    checked: list[Verdict] | None = None,
    same: dict[str, str] | None = None,
    skipped: dict[str, int] | None = None,
) -> pl.DataFrame:
    rows = outcomes(
        screened_rows(urls, screened, same, skipped).collect(), checked_frame(checked or [])
    ).sort("row")
    check_conserved(rows, len(urls))
    assert dict(rows.schema) == SCHEMA
    return rows


def test_every_stage_gives_its_outcome() -> None:
    """Rejected URL, screened-out image, checked, not reached, repeated: each row says so."""
    rows = outcomes_of(
        [url(1), "ftp://x/y", url(2), url(3), url(1), url(4), None],
        [
            Screened(key(1), None, 800, 600, "jpeg"),
            Screened(key(2), "too_small", 10, 10, "png"),
            Screened(key(3)),
        ],
        [passed(1), Verdict(key(3), Outcome.ERROR, "invalid_url", code="InvalidURL")],
    )
    assert rows.select("row", "outcome", "reason", "duplicate_of").rows() == [
        (0, "passed", None, None),
        (1, "screened_out", "not_http", None),
        (2, "screened_out", "too_small", None),
        (3, "error", "invalid_url", None),
        (4, "duplicate", None, 0),
        (5, "skipped", "run_stopped", None),
        (6, "screened_out", "empty_url", None),
    ]
    assert rows["billing"].to_list() == ["billed", "none", "none", "none", "none", "none", "none"]
    assert rows["run_cost_usd"].to_list() == [0.000574, 0, 0, 0, 0, 0, 0]
    assert rows["width_px"].to_list() == [800, None, 10, None, 800, None, None]


def test_an_image_that_opted_out_is_never_published_though_another_run_paid_for_it() -> None:
    """Nor are its duplicates; an image screened out for another reason has the later verdict."""
    rows = outcomes_of(
        [url(1), url(1), url(2)],
        [Screened(key(1), "opted_out"), Screened(key(2), "timeout")],
        [passed(1), passed(2)],
    )
    assert rows.select("outcome", "reason", "check_pass").rows() == [
        ("screened_out", "opted_out", None),
        ("duplicate", None, None),
        ("passed", None, True),
    ]
    assert rows["lifetime_cost_usd"].to_list() == [0.000574, 0.0, 0.000574]
    assert approved(rows.lazy(), keep_duplicates=True).collect()["row"].to_list() == [2]


def test_only_content_that_may_be_compared_is() -> None:
    """The file that redirects led to always, a hash of all bytes where ``same_content`` is set."""
    kept = pl.DataFrame(
        {"image_key": [key(n) for n in range(3)], "content_key": ["u" + "0" * 31, "a" * 32, None]},
        schema={"image_key": pl.String, "content_key": pl.String},
    )
    assert comparable(kept, same_content=False)["image_key"].to_list() == [key(0)]
    assert comparable(kept, same_content=True)["image_key"].to_list() == [key(0), key(1)]
    assert comparable(kept.select("image_key"), same_content=False).is_empty()


def test_a_duplicate_copies_the_verdict_and_none_of_the_money() -> None:
    """What was said about the image is repeated; when, how and for how much is not."""
    first, copy = outcomes_of(
        [url(1), url(1)], [Screened(key(1), None, 9, 8, "png")], [passed(1, code="C")]
    ).rows(named=True)
    same = (
        "image_key",
        "check_pass",
        "humanoid",
        "code",
        "request_id",
        "width_px",
        "height_px",
        "image_format",
        "image_traits",
    )
    assert {name: copy[name] for name in same} == {name: first[name] for name in same}
    assert (copy["run_cost_usd"], copy["lifetime_cost_usd"], copy["attempts"], copy["billing"]) == (
        0.0,
        0.0,
        0,
        "none",
    )
    assert (copy["reason"], copy["message"], copy["http_status"], copy["checked_at"]) == (None,) * 4
    assert copy["from_ledger"] is False


def test_images_with_the_same_bytes_are_duplicates_of_the_first_row() -> None:
    """Whichever was checked: the first has the verdict and the money, the others say why they don't."""
    rows = outcomes_of(
        [url("b"), url("x"), url("a"), url("b"), url("c")],
        [Screened(key("b"), None, 9, 8, "png"), Screened(key("c"), "not_found")],
        [passed("a"), passed("x")],
        same={key("b"): key("a")},
    )
    assert rows.select("image_key", "outcome", "reason", "duplicate_of", "lifetime_cost_usd").rows() == [
        (key("b"), "passed", None, None, 0.000574),
        (key("x"), "passed", None, None, 0.000574),
        (key("a"), "duplicate", "same_content", 0, 0.0),
        (key("b"), "duplicate", None, 0, 0.0),
        (key("c"), "screened_out", "not_found", None, 0.0),
    ]
    assert rows["width_px"].to_list() == [9, None, 9, 9, None]
    assert rows["check_pass"].to_list() == [True, True, True, True, None]


def test_a_screened_out_image_does_not_represent_its_copies() -> None:
    """It is gone, and they are not: the first of them has the verdict, by whatever key it was checked."""
    rows = outcomes_of(
        [url("a"), url("a"), url("b"), url("c")],
        [Screened(key("a"), "not_found"), Screened(key("b")), Screened(key("c"))],
        [passed("a")],
        same={key("b"): key("a"), key("c"): key("a")},
    )
    assert rows.select("image_key", "outcome", "reason", "duplicate_of").rows() == [
        (key("a"), "screened_out", "not_found", None),
        (key("a"), "duplicate", None, 0),
        (key("b"), "passed", None, None),
        (key("c"), "duplicate", "same_content", 2),
    ]
    assert rows["lifetime_cost_usd"].to_list() == [0.0, 0.0, 0.000574, 0.0]


def test_the_latest_result_of_an_image_counts() -> None:
    """A verdict after an error, whichever was stored first; and no charge is lost."""
    results = [
        passed(1, checked_at=datetime(2026, 1, 2, tzinfo=UTC), lifetime_cost_micro_usd=574),
        Verdict(key(1), Outcome.ERROR, "download_failed", checked_at=datetime(2026, 1, 1, tzinfo=UTC)),
        Verdict(key(1), Outcome.SKIPPED, "run_stopped", lifetime_cost_micro_usd=1148),
        Verdict(key(2), Outcome.SKIPPED, "run_stopped"),
    ]
    latest = latest_results(checked_frame(results)).sort("outcome")
    assert latest.select("image_key", "outcome", "lifetime_cost_usd").rows() == [
        (key(1), "passed", 0.001148),
        (key(2), "skipped", 0.0),
    ]


def test_empty_frames_are_typed() -> None:
    """No rows, nothing screened, nothing checked: the same columns."""
    assert dict(screened_frame([]).schema) == SCREENED_SCHEMA
    assert dict(checked_frame([]).schema) == CHECKED_SCHEMA
    rows = outcomes_of([])
    assert rows.height == 0
    assert dict(approved(rows.lazy()).collect().schema) == SCHEMA
    assert check_conserved(rows, 0) == dict.fromkeys([o.value for o in Outcome], 0)


def test_the_inputs_columns_come_first_and_unchanged() -> None:
    """Rows keep their order; outcomes in another order are an error before they are put beside them."""
    given = pl.DataFrame({"n": [3, 1, 2], "image_url": [url(3), url(1), url(2)], "none": [None, None, None]})
    rows = outcomes_of(given["image_url"].to_list())
    output = assemble(given.lazy(), rows.lazy()).collect()
    assert output.columns == [*given.columns, *SCHEMA]
    assert output.select(given.columns).equals(given)
    assert output["row"].to_list() == [0, 1, 2]
    with pytest.raises(DataIntegrityError, match="their order"):
        check_conserved(rows.sort("row", descending=True), 3)
    with pytest.raises(pl.exceptions.PolarsError):
        assemble(given.lazy(), rows.head(2).lazy()).collect()


def test_approved_are_the_passed_and_on_request_their_duplicates() -> None:
    """A duplicate of a failed or unchecked image is never approved."""
    rows = outcomes_of(
        [url(1), url(1), url(2), url(2), url(3), url(3)],
        checked=[passed(1), Verdict(key(2), Outcome.FAILED, "no_human", check_pass=False)],
    )
    assert approved(rows.lazy()).collect()["row"].to_list() == [0]
    assert approved(rows.lazy(), keep_duplicates=True).collect()["row"].to_list() == [0, 1]


def test_rows_that_do_not_add_up_are_named() -> None:
    """A lost row, a doubled one and an unknown outcome are errors, with the row's number."""
    rows = outcomes_of([url(n) for n in range(4)])
    with pytest.raises(DataIntegrityError, match=r"4 rows went in and 3 came out; wrong rows: 2"):
        check_conserved(rows.filter(pl.col("row") != 2), 4)
    with pytest.raises(DataIntegrityError, match=r"wrong rows: 1"):
        check_conserved(pl.concat([rows, rows.filter(row=1)]), 4)
    with pytest.raises(DataIntegrityError, match=r"wrong rows: 3, 1"):
        check_conserved(pl.concat([rows.head(3), rows.filter(row=1)]), 4)
    wrong = rows.with_columns(pl.when(row=2).then(pl.lit("maybe")).otherwise("outcome").alias("outcome"))
    with pytest.raises(
        DataIntegrityError, match=r"rows \[2\] have no outcome of the closed set, but \['maybe'\]"
    ):
        check_conserved(wrong, 4)
    with pytest.raises(DataIntegrityError, match=r"\[0\].*None"):
        check_conserved(rows.with_columns(outcome=pl.when(pl.col("row") > 0).then("outcome")), 4)


def test_an_image_with_two_results_is_an_error() -> None:
    """Two results of one key would double its rows: that is an error, never more rows."""
    rows = outcomes(screened_rows([url(1)]).collect(), checked_frame([passed(1), passed(1)]))
    with pytest.raises(DataIntegrityError):
        check_conserved(rows, 1)


odd = st.sampled_from([None, "", "ftp://a/b", "http://", "HTTP://Images.test/1.jpg#f"])
names = st.one_of(st.integers(0, 6).map(url), odd)
reasons = st.sampled_from([None, None, "too_small", "not_found"])
decided = st.sampled_from([o for o in Outcome if o not in (Outcome.DUPLICATE, Outcome.SCREENED_OUT)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(names, max_size=20),
    st.dictionaries(st.integers(0, 6), reasons),
    st.dictionaries(st.integers(0, 6), decided),
)
def test_rows_in_are_rows_out_with_one_outcome_each(
    urls: list[str | None], screened: dict[int, str | None], checked: dict[int, Outcome]
) -> None:
    """Whatever was screened and checked: as many rows, counts that add up, no unique image twice."""
    rows = outcomes_of(
        urls,
        [Screened(key(n), reason) for n, reason in screened.items()],
        [Verdict(key(n), outcome) for n, outcome in checked.items()],
    )
    assert rows["row"].to_list() == list(range(len(urls)))
    counts = check_conserved(rows, len(urls))
    assert sum(counts.values()) == len(urls)
    assert counts == {o.value: Counter(rows["outcome"]).get(o.value, 0) for o in Outcome}
    unique = rows.filter(pl.col("outcome") != "duplicate", pl.col("image_key").is_not_null())
    assert not unique["image_key"].is_duplicated().any()
    firsts = rows.filter(outcome="duplicate").join(rows, left_on="duplicate_of", right_on="row")
    assert firsts["image_key"].equals(firsts["image_key_right"], check_names=False)
    assert (firsts["duplicate_of"] < firsts["row"]).all()
    assert firsts.height == counts["duplicate"]
