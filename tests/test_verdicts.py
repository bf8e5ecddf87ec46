"""Stage 5: every input row comes out once, with one outcome, whatever happened to its picture."""

from collections import Counter
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks import candidates as stage1
from s2v_tasks.errors import ConservationError
from s2v_tasks.models import Billing, Outcome, Screened, Verdict
from s2v_tasks.verdicts import (
    JUDGED_SCHEMA,
    SAME_SCHEMA,
    SCHEMA,
    SCREENED_SCHEMA,
    approved,
    assemble,
    conserved,
    judged_frame,
    last_told,
    looked,
    outcomes,
    screened_frame,
)


def url(name: object) -> str:
    return f"http://pictures.test/{name}.jpg"


def seen(
    urls: list[str | None], screened: list[Screened] | None = None, same: dict[str, str] | None = None
) -> pl.LazyFrame:
    placed = stage1.placed(pl.LazyFrame({"image_url": pl.Series(urls, dtype=pl.String)}), "image_url")
    asked_as = pl.LazyFrame([*(same or {}).items()], schema=SAME_SCHEMA, orient="row")
    return looked(placed, screened_frame(screened or []).lazy(), asked_as)


def key(name: object) -> str:
    return stage1.image_key(url(name))


def passed(name: object, **more: object) -> Verdict:
    known = {"check_pass": True, "humanoid": True, "request_id": f"r-{name}", "http_status": 200}
    paid = {"attempts": 1, "cost_micro_usd": 574, "paid_micro_usd": 574, "billing": Billing.BILLED}
    return Verdict(key(name), Outcome.PASSED, **{**known, **paid, **more})  # type: ignore[arg-type]


def judge(
    urls: list[str | None],
    screened: list[Screened] | None = None,
    judged: list[Verdict] | None = None,
    same: dict[str, str] | None = None,
) -> pl.DataFrame:
    rows = outcomes(seen(urls, screened, same), judged_frame(judged or []).lazy()).collect()
    conserved(rows, len(urls))
    assert dict(rows.schema) == SCHEMA
    return rows


def test_every_stage_of_the_way_gives_its_outcome() -> None:
    """Refused address, refused picture, judged, not reached, repeated: each row says so."""
    rows = judge(
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
        (5, "unspent", "run_stopped", None),
        (6, "screened_out", "empty_url", None),
    ]
    assert rows["billing"].to_list() == ["billed", "none", "none", "none", "none", "none", "none"]
    assert rows["cost_usd"].to_list() == [0.000574, 0, 0, 0, 0, 0, 0]
    assert rows["width_px"].to_list() == [800, None, 10, None, 800, None, None]


def test_a_duplicate_copies_the_verdict_and_none_of_the_money() -> None:
    """What was said about the picture is repeated; when, how and for how much is not."""
    first, copy = judge([url(1), url(1)], [Screened(key(1), None, 9, 8, "png")], [passed(1, code="C")]).rows(
        named=True
    )
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
    assert (copy["cost_usd"], copy["paid_usd"], copy["attempts"], copy["billing"]) == (0.0, 0.0, 0, "none")
    assert (copy["reason"], copy["message"], copy["http_status"], copy["judged_at"]) == (None,) * 4
    assert copy["from_ledger"] is False


def test_pictures_with_the_same_bytes_are_duplicates_of_the_first_row() -> None:
    """Whichever of them was asked; the first has the verdict and the money, the others say why they don't."""
    rows = judge(
        [url("b"), url("x"), url("a"), url("b"), url("c")],
        [Screened(key("b"), None, 9, 8, "png"), Screened(key("c"), "not_found")],
        [passed("a"), passed("x")],
        same={key("b"): key("a")},
    )
    assert rows.select("image_key", "outcome", "reason", "duplicate_of", "paid_usd").rows() == [
        (key("b"), "passed", None, None, 0.000574),
        (key("x"), "passed", None, None, 0.000574),
        (key("a"), "duplicate", "same_content", 0, 0.0),
        (key("b"), "duplicate", None, 0, 0.0),
        (key("c"), "screened_out", "not_found", None, 0.0),
    ]
    assert rows["width_px"].to_list() == [9, None, 9, 9, None]
    assert rows["check_pass"].to_list() == [True, True, True, True, None]


def test_what_the_screen_refused_does_not_stand_for_its_copies() -> None:
    """It is gone, and they are not: the first of them has the verdict, by whatever key it was asked."""
    rows = judge(
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
    assert rows["paid_usd"].to_list() == [0.0, 0.0, 0.000574, 0.0]


def test_what_was_told_last_of_a_picture_stands() -> None:
    """An answer after an error, whichever was written down first; and none of the money is forgotten."""
    told = [
        passed(1, judged_at=datetime(2026, 1, 2, tzinfo=UTC), paid_micro_usd=574),
        Verdict(key(1), Outcome.ERROR, "download_failed", judged_at=datetime(2026, 1, 1, tzinfo=UTC)),
        Verdict(key(1), Outcome.UNSPENT, "run_stopped", paid_micro_usd=1148),
        Verdict(key(2), Outcome.UNSPENT, "run_stopped"),
    ]
    stands = last_told(judged_frame(told)).sort("outcome")
    assert stands.select("image_key", "outcome", "paid_usd").rows() == [
        (key(1), "passed", 0.001148),
        (key(2), "unspent", 0.0),
    ]


def test_empty_frames_are_typed() -> None:
    """No rows, nothing screened, nothing judged: the same columns."""
    assert dict(screened_frame([]).schema) == SCREENED_SCHEMA
    assert dict(judged_frame([]).schema) == JUDGED_SCHEMA
    rows = judge([])
    assert rows.height == 0
    assert dict(approved(rows.lazy()).collect().schema) == SCHEMA
    assert conserved(rows, 0) == dict.fromkeys([o.value for o in Outcome], 0)


def test_the_inputs_columns_come_first_and_unchanged() -> None:
    """Rows keep their order; outcomes in another order are refused before they are put beside them."""
    given = pl.DataFrame({"n": [3, 1, 2], "image_url": [url(3), url(1), url(2)], "none": [None, None, None]})
    rows = judge(given["image_url"].to_list())
    came = assemble(given.lazy(), rows.lazy()).collect()
    assert came.columns == [*given.columns, *SCHEMA]
    assert came.select(given.columns).equals(given)
    assert came["row"].to_list() == [0, 1, 2]
    with pytest.raises(ConservationError, match="their order"):
        conserved(rows.sort("row", descending=True), 3)
    with pytest.raises(pl.exceptions.PolarsError):
        assemble(given.lazy(), rows.head(2).lazy()).collect()


def test_approved_are_the_passed_and_on_request_their_duplicates() -> None:
    """A duplicate of a failed or unjudged picture is never approved."""
    rows = judge(
        [url(1), url(1), url(2), url(2), url(3), url(3)],
        judged=[passed(1), Verdict(key(2), Outcome.FAILED, "no_human", check_pass=False)],
    )
    assert approved(rows.lazy()).collect()["row"].to_list() == [0]
    assert approved(rows.lazy(), keep_duplicates=True).collect()["row"].to_list() == [0, 1]


def test_rows_that_do_not_add_up_are_named() -> None:
    """A lost row, a doubled one and an outcome of nobody's are errors, with the row's number."""
    rows = judge([url(n) for n in range(4)])
    with pytest.raises(ConservationError, match=r"4 rows went in and 3 came out; wrong rows: 2"):
        conserved(rows.filter(pl.col("row") != 2), 4)
    with pytest.raises(ConservationError, match=r"wrong rows: 1"):
        conserved(pl.concat([rows, rows.filter(row=1)]), 4)
    with pytest.raises(ConservationError, match=r"wrong rows: 3, 1"):
        conserved(pl.concat([rows.head(3), rows.filter(row=1)]), 4)
    wrong = rows.with_columns(pl.when(row=2).then(pl.lit("maybe")).otherwise("outcome").alias("outcome"))
    with pytest.raises(
        ConservationError, match=r"rows \[2\] have no outcome of the closed set, but \['maybe'\]"
    ):
        conserved(wrong, 4)
    with pytest.raises(ConservationError, match=r"\[0\].*None"):
        conserved(rows.with_columns(outcome=pl.when(pl.col("row") > 0).then("outcome")), 4)


def test_a_picture_that_two_shards_tell_of_is_no_second_row() -> None:
    """If a key were judged twice, rows would multiply: that is an error, never more rows."""
    rows = outcomes(seen([url(1)]), judged_frame([passed(1), passed(1)]).lazy()).collect()
    with pytest.raises(ConservationError):
        conserved(rows, 1)


odd = st.sampled_from([None, "", "ftp://a/b", "http://", "HTTP://Pictures.test/1.jpg#f"])
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
    urls: list[str | None], screened: dict[int, str | None], judged: dict[int, Outcome]
) -> None:
    """Whatever was screened and judged: as many rows, counts that add up, no unique picture twice."""
    rows = judge(
        urls,
        [Screened(key(n), reason) for n, reason in screened.items()],
        [Verdict(key(n), outcome) for n, outcome in judged.items()],
    )
    assert rows["row"].to_list() == list(range(len(urls)))
    counts = conserved(rows, len(urls))
    assert sum(counts.values()) == len(urls)
    assert counts == {o.value: Counter(rows["outcome"]).get(o.value, 0) for o in Outcome}
    unique = rows.filter(pl.col("outcome") != "duplicate", pl.col("image_key").is_not_null())
    assert not unique["image_key"].is_duplicated().any()
    firsts = rows.filter(outcome="duplicate").join(rows, left_on="duplicate_of", right_on="row")
    assert firsts["image_key"].equals(firsts["image_key_right"], check_names=False)
    assert (firsts["duplicate_of"] < firsts["row"]).all()
    assert firsts.height == counts["duplicate"]
