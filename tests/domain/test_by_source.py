"""The table by source: every row counted once, waste first, and nothing secret in its names."""

import math
from typing import Any

import made_run
import polars as pl
import pytest
from made_run import PRICE_USD, row

from s2v_tasks.domain.by_source import (
    MAX_SHOWN,
    NO_HOST,
    SCHEMA,
    by_source,
    cells,
    counts,
    header,
    markdown,
    of_kind,
)
from s2v_tasks.domain.gate_rules import NO_SEGMENT, facts_of
from s2v_tasks.domain.interval import wilson
from s2v_tasks.domain.verdict_table import SCHEMA as VERDICTS


def verdicts(*rows: dict[str, Any]) -> pl.LazyFrame:
    """Verdicts of these rows."""
    return made_run.verdicts(*rows).lazy()


MIXED = verdicts(
    row("A.example", "web", "passed", 1),
    row("a.example:8443", "web", "passed", 2),
    row("a.example", "web", "failed", 1),
    row("a.example", None, "duplicate", lifetime_cost_usd=PRICE_USD),
    row("b.example", None, "failed", 1),
    row("b.example", "web", "failed", 1),
    row("b.example", "web", "screened_out", reason="too_small"),
    row("b.example", "web", "passed", 0, from_ledger=True, lifetime_cost_usd=PRICE_USD),
    row("c.example", "lab", "skipped"),
)


def table(frame: pl.LazyFrame = MIXED, segment_column: str | None = "source") -> pl.DataFrame:
    return by_source(frame, "image_url", segment_column).collect(engine="streaming")


def test_each_segment_and_each_host_is_a_row_with_most_waste_first() -> None:
    """Segments come first; money spent on images that did not pass decides, then the name."""
    found = table()
    assert found.schema == pl.Schema(SCHEMA)
    assert found.select("kind", "source").rows() == [
        ("segment", "web"), ("segment", NO_SEGMENT), ("segment", "lab"),
        ("host", "b.example"), ("host", "a.example"), ("host", "c.example"),
    ]  # fmt: skip
    assert table(segment_column=None)["kind"].unique().to_list() == ["host"]


def test_a_source_adds_up() -> None:
    """Rows by what became of them, calls, money, rates; a reused verdict is one call and its price."""
    web, a, b = (table().row(n, named=True) for n in (0, 4, 3))
    assert [web[name] for name in ("candidates", "duplicates", "screened_out", "checked", "skipped")] == [
        6, 0, 1, 5, 0,
    ]  # fmt: skip
    assert (web["passed"], web["calls"], web["wasted_calls"]) == (3, 6, 2)
    assert web["wasted_usd"] == 2 * 574 / 1e6
    assert web["cost_usd"] == 6 * 574 / 1e6
    assert web["cost_per_approved_usd"] == pytest.approx(2 * PRICE_USD)
    assert web["hours_per_1000_approved"] == pytest.approx(6 / 3 * 1000 / 5 / 3600)
    assert (a["duplicates"], a["cost_usd"]) == (1, 4 * 574 / 1e6)
    assert (b["checked"], b["passed"], b["calls"]) == (3, 1, 3)


def test_what_the_face_check_dropped_is_a_column_of_its_own_where_it_dropped_any() -> None:
    """Then it is not among those that the screen rejected; the frame has both together."""
    dropped = row("b.example", "web", "screened_out", reason="no_face")
    found = table(pl.concat([MIXED, verdicts(dropped, dropped)]))
    web = found.row(0, named=True)
    assert (web["screened_out"], web["dropped"]) == (3, 2)
    assert header(found)[:5] == ("candidates", "screened out", "dropped", "checked", "passed")
    assert cells(found)[0][1:6] == ["8", "1", "2", "5", "3"]
    lab = found.filter(source="lab")
    assert cells(lab, counts(found))[0][1:6] == ["1", "0", "0", "0", "0"]
    assert "| screened out | dropped | checked |" in markdown(of_kind(found))
    assert "dropped" not in (*header(table()), *markdown(of_kind(table())).split())


def test_the_pass_rate_is_the_gates_and_has_wilsons_interval() -> None:
    """One number for one thing; 95 % between its ends."""
    facts = facts_of(MIXED, "source").filter(pl.col("scope") == "segment").collect()
    rates = dict(facts.select("segment", "pass_rate").iter_rows())
    web = table().row(0, named=True)
    assert {r["source"]: r["pass_rate"] for r in table().filter(kind="segment").to_dicts()} == rates
    assert (web["pass_rate_low"], web["pass_rate_high"]) == (wilson(3, 5).low, wilson(3, 5).high)


def test_a_source_without_an_approved_image_has_no_price() -> None:
    """Infinite if something was spent, null if nothing was; both are a dash for people."""
    rows = {r["source"]: r for r in table().to_dicts()}
    assert math.isinf(rows[NO_SEGMENT]["cost_per_approved_usd"])
    assert math.isinf(rows[NO_SEGMENT]["hours_per_1000_approved"])
    assert rows["lab"]["pass_rate"] is rows["lab"]["cost_per_approved_usd"] is None
    assert [line[-2:] for line in cells(table()) if line[0] in (NO_SEGMENT, "lab")] == [["-", "-"]] * 2


def test_free_checks_that_fail_are_waste_too() -> None:
    """Where no money was wasted, the account's calls decide."""
    frame = verdicts(
        row("a.example", "x", "failed", 1, lifetime_cost_usd=0.0),
        row("b.example", "x", "failed", 3, lifetime_cost_usd=0.0),
    )
    assert table(frame, None)["source"].to_list() == ["b.example", "a.example"]


@pytest.mark.parametrize(
    "url",
    [
        None, "", "no url", "https://", "https://?sig=sesame", "https://user:sesame@/x", "https://sesame@",
        "https://[x?sig=sesame]/", "https://a.example%3Fsig=sesame", "https://a.example:sesame/",
        f"https://{'a' * 300}/",
    ],
)  # fmt: skip
def test_a_url_without_a_well_formed_host_gives_nothing_of_itself(url: str | None) -> None:
    """A query string or a password never becomes the name of a source."""
    assert table(verdicts({"image_url": url, "outcome": "screened_out"}), None)["source"].item() == NO_HOST


@pytest.mark.parametrize(
    "url",
    ["HTTPS://a.Example/x", "https://u:p@q@a.example:80?x=1", "ftp://a.example#f", " http://a.example"],
)
def test_a_host_is_found_in_any_url_that_has_one(url: str) -> None:
    """Letter case, user, port and scheme don't matter."""
    assert table(verdicts({"image_url": url}), None)["source"].item() == "a.example"


def test_the_url_may_be_a_field_and_columns_may_be_named_as_the_tables() -> None:
    """Input columns named ``host`` and ``segment`` are read before they are replaced."""
    frame = MIXED.select(
        pl.struct(url="image_url").alias("host"), pl.col("source").alias("segment"), pl.col(*VERDICTS)
    )
    assert by_source(frame, "host.url", "segment").collect().equals(table())


def test_the_long_tail_is_one_row_that_adds_up() -> None:
    """Its counts are those of all its sources, its rates are made of these."""
    many = verdicts(*(row(f"h{n}.example", "x", "passed" if n % 2 else "failed", 1) for n in range(40)))
    whole = table(many, None)
    short = of_kind(whole)
    assert short.height == MAX_SHOWN
    assert short["source"][-1] == "29 others"
    assert short["candidates"].sum() == 40
    assert short["wasted_usd"].sum() == pytest.approx(20 * PRICE_USD)
    assert short["pass_rate"][-1] == 20 / 29
    assert of_kind(whole, 40).equals(whole)


def test_hostile_names_stay_in_their_cell() -> None:
    """No markup, no column more, no control character, no query string in the Markdown."""
    name = "a|b`<script>\n\x1b[31mhttps://x.example/?sig=sesame"
    text = markdown(of_kind(table(verdicts({"source": name, "image_url": "https://a.example/"}))))
    assert text.splitlines()[2].startswith("| `a\\|b'<script>\\n\\x1b[31mhttps://x.example/?...` | 1 |")
    assert len(text.splitlines()) == 3
    assert markdown(table(verdicts(), None)) == ""
