"""Contact sheets: which images of a run a person sees."""

from collections import Counter
from typing import Any

import polars as pl

from s2v_tasks.domain import contact_sheets, screening, ssrf  # noqa: F401
from s2v_tasks.domain.contact_sheets import HIDDEN_REASONS, MAX_PER_SHEET, MAX_TILES, chosen

Groups = dict[tuple[str, str | None], int]


def verdicts(groups: Groups) -> pl.LazyFrame:
    """So many rows of each outcome and reason, mixed."""
    kinds = [kind for kind, rows in groups.items() for _ in range(rows)]
    rows = range(len(kinds))
    frame = pl.DataFrame(
        {
            "image_url": [f"https://h{row}.example/a.jpg?secret" for row in rows],
            "row": rows,
            "image_key": [f"{row:032x}" for row in rows],
            "outcome": [outcome for outcome, _ in kinds],
            "reason": pl.Series([reason for _, reason in kinds], dtype=pl.String),
        }
    )
    return frame.sample(fraction=1, shuffle=True, seed=1).lazy()


def drawn(groups: Groups, seed: int = 0) -> pl.DataFrame:
    rows = verdicts(groups)
    sizes = contact_sheets.sheet_sizes(rows).collect()
    found = contact_sheets.drawn(rows, sizes, seed).collect(engine="streaming")
    return chosen(contact_sheets.tiles(rows, found, "image_url").collect(engine="streaming"))


def sheets(tiles: pl.DataFrame) -> Counter[Any]:
    return Counter(tiles["sheet"])


def test_each_outcome_and_reason_has_a_sheet() -> None:
    """Passed ones too, a sheet at most 24 tiles; duplicates have none, for they show other rows' images."""
    tiles = drawn(
        {
            ("passed", None): 5000,
            ("failed", "no_human"): 24,
            ("failed", "face_pose"): 3,
            ("skipped", "budget_exhausted"): 101,
            ("duplicate", None): 90,
            ("duplicate", "same_content"): 90,
        }
    )
    assert sheets(tiles) == {
        "passed": MAX_PER_SHEET,
        "failed/no_human": 24,
        "failed/face_pose": 3,
        "skipped/budget_exhausted": MAX_PER_SHEET,
    }
    assert tiles["row"].is_unique().all()
    assert tiles["note"].is_null().all()


def test_the_seed_draws_the_sample() -> None:
    """The same seed the same rows, in whatever order they come; another seed others, spread over all rows."""
    groups: Groups = {("passed", None): 20_000}
    first, again, other = drawn(groups, 7), drawn(groups, 7), drawn(groups, 8)
    assert first.equals(again)
    assert not set(first["row"]) & set(other["row"])
    assert first["row"].min() < 5000  # type: ignore[operator]
    assert first["row"].max() > 15_000  # type: ignore[operator]


def test_no_image_that_must_not_be_shown_is_to_be_fetched() -> None:
    """Moderated ones, opt-outs and refused URLs are tiles without an image, and so are dead links."""
    groups: Groups = {("screened_out", reason): 2 for reason in HIDDEN_REASONS - {"moderated"}}
    groups |= {("error", "moderated"): 2, ("screened_out", "not_found"): 2, ("screened_out", "too_small"): 2}
    tiles = drawn(groups)
    notes = dict(tiles.select("sheet", "note").iter_rows())
    assert notes.pop("screened_out/not_found") == "not_fetched"
    assert notes.pop("screened_out/too_small") is None
    assert set(notes.values()) == {"not_shown"}
    assert {"error/moderated", "screened_out/opted_out", "screened_out/user_info"} <= set(notes)


def test_all_sheets_together_are_bounded() -> None:
    """Each gives up some, the small ones last; tiles without an image go first."""
    groups: Groups = {("failed", f"reason_{number}"): 50 for number in range(20)}
    groups |= {("passed", None): 2, ("screened_out", "opted_out"): 50}
    tiles = drawn(groups)
    assert tiles.height == MAX_TILES
    found = sheets(tiles)
    assert found.pop("passed") == 2
    assert set(found.values()) <= {9, 10}
    assert len(found) == 20


def test_what_a_rule_gives_up_has_a_sheet_of_its_own() -> None:
    """Images that passed in the sample though a rule of the run drops such; other rules' images stay."""
    rows = verdicts({("passed", None): 30, ("screened_out", "no_face"): 3, ("failed", "no_human"): 2})
    seen = pl.when(pl.col("outcome") == "failed").then(0).otherwise(pl.col("row") % 3).alias("faces_seen")
    found = contact_sheets.with_rules(rows.with_columns(seen), ["no_face"]).collect()
    passed = found.filter(outcome="passed")
    assert passed["reason"].is_null().to_list() == (passed["faces_seen"] != 0).to_list()
    assert set(contact_sheets.sheet_sizes(found.lazy()).collect()["sheet"]) == {
        "passed", "passed/no_face", "screened_out/no_face", "failed/no_human",
    }  # fmt: skip
