"""Several URLs of one image: newest first, at most three; which row represents the image."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.alternate_urls import (
    INDEX_SCHEMA,
    LATER,
    following,
    several_urls,
    skipped_to,
    with_rank,
    with_urls,
)
from s2v_tasks.domain.candidate_table import add_image_keys, unique_images
from s2v_tasks.domain.image_url import image_key, requested_form
from s2v_tasks.domain.response_rules import REASONS, UNFETCHED
from s2v_tasks.domain.screening import gave_no_image, is_better
from s2v_tasks.models import Screened


def signed(name: str, signature: int) -> str:
    return f"https://a.example/{name}.jpg?X-Amz-Date=1&X-Amz-Signature={signature}"


def marked(*urls: str | None) -> pl.LazyFrame:
    return add_image_keys(pl.LazyFrame({"image_url": urls}, schema={"image_url": pl.String}), "image_url")


def images(*urls: str | None) -> pl.DataFrame:
    rows = marked(*urls)
    return with_urls(unique_images(rows), several_urls(rows)).collect()


def test_the_newest_url_of_an_image_is_tried_first_and_at_most_two_others() -> None:
    """The newest is that of the last row; a URL that is there again counts once, by its last row."""
    a = [signed("a", n) for n in range(5)]
    b = "https://a.example/b.jpg"
    assert len({image_key(url) for url in a}) == 1
    out = images(a[0], b, None, a[1], a[2], a[3], a[1], a[4], a[1], "")
    assert out.select("image_key", "url", "row").rows() == [(image_key(a[0]), a[1], 3), (image_key(b), b, 1)]
    others = out["others"].to_list()
    assert others[0] == [a[4], a[3]]
    assert not others[1]


def test_urls_that_make_the_same_request_are_one() -> None:
    """Fragment, letter case of the host and default port are not sent; the first spelling is used."""
    url = signed("a", 1)
    same = [url, url + "#top", url.replace("https://a.example", "HTTPS://A.example:443")]
    assert {requested_form(one) for one in same} == {url}
    assert images(*same).select("url", "row").rows() == [(url, 0)]
    assert not images(*same)["others"].to_list()[0]
    other = signed("a", 2)
    assert images(*same, other, same[1]).select("url", "row").rows() == [(url, 0)]
    assert images(*same, other, same[1])["others"].to_list() == [[other]]


def test_images_with_one_url_have_no_others() -> None:
    """Nothing is found for them, whatever else is repeated."""
    rows = marked(
        "https://a.example/a.jpg", None, "https://a.example/a.jpg", "", "ftp://x", "https://b.example"
    )
    assert several_urls(rows).collect().is_empty()
    rows = rows.with_columns(url_index=pl.lit(None, pl.Int64))
    for several in (None, several_urls(rows)):
        assert with_rank(rows, several).collect().sort("row")["rank"].to_list() == [*range(6)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=20), st.integers(0, 3))
def test_one_row_represents_each_image_and_it_is_the_first_with_the_url_in_use(
    rows: list[tuple[str, int]], index: int
) -> None:
    """For any rows and any number of URLs given up: also if all were, then it is the first row."""
    urls = [signed(*row) for row in rows]
    keyed = marked(*urls).with_columns(url_index=pl.lit(index, pl.Int64))
    ranked = with_rank(keyed, several_urls(keyed)).collect().sort("row")
    for key in ranked["image_key"].unique():
        mine = [(n, url) for n, url in enumerate(urls) if image_key(url) == key]
        newest_first = list(dict.fromkeys(url for _, url in reversed(mine)))
        used = newest_first[index] if index < len(newest_first) else None
        of_key = ranked.filter(image_key=key)
        wanted = next((n for n, url in mine if url == used), mine[0][0])
        assert of_key["rank"].min() % LATER == wanted  # type: ignore[operator]
        assert (of_key["rank"].min() < LATER) == (used is not None)  # type: ignore[operator]


def tried(*urls: list[str], keys: list[str] | None = None) -> pl.DataFrame:
    """Images as the queue hands them out: their URLs, the first of which is used."""
    keys = keys or [str(n) for n in range(len(urls))]
    return pl.DataFrame(
        {
            "image_key": keys,
            "own_key": [str(n) for n in range(len(urls))],
            "url": [one[0] for one in urls],
            "others": [one[1:] or None for one in urls],
            "url_index": [0] * len(urls),
        },
        schema_overrides={"others": pl.List(pl.String), "url_index": pl.Int64},
    )


def test_a_search_goes_on_where_it_was() -> None:
    """URLs before the index are left out; the last one stays, so that the image is not lost."""
    found = skipped_to(
        tried(["a", "b", "c"], ["d", "e"], ["f"], ["g", "h"]),
        pl.DataFrame([("0", 1), ("1", 5), ("2", 1)], schema=INDEX_SCHEMA, orient="row"),
    )
    assert [(url, others or []) for url, others in found.select("url", "others").iter_rows()] == [
        ("b", ["c"]),
        ("e", []),
        ("f", []),
        ("g", ["h"]),
    ]
    assert found["url_index"].to_list() == [1, 5, 1, 0]
    again = skipped_to(found, pl.DataFrame([("0", 1)], schema=INDEX_SCHEMA, orient="row"))
    assert again["url"].to_list() == ["b", "e", "f", "g"]


def test_the_next_url_is_an_images_own_before_a_copys() -> None:
    """Only for keys that the vendor could not fetch; an image without another URL gives way to its copy."""
    images = tried(["a", "b"], ["c"], ["d"], ["e", "f"], ["g"], keys=["0", "0", "2", "3", "2"])
    first = following(images, pl.Series(["0", "2"]))
    assert first.select("image_key", "own_key", "url", "url_index").rows() == [
        ("0", "0", "b", 1),
        ("0", "1", "c", 0),
        ("2", "4", "g", 0),
    ]
    second = following(first, pl.Series(["0", "2"]))
    assert second.select("image_key", "own_key", "url").rows() == [("0", "1", "c")]
    assert following(second, pl.Series(["0"])).is_empty()
    assert following(images, pl.Series([], dtype=pl.String)).is_empty()


@pytest.mark.parametrize(
    ("screened", "next_"),
    [
        (Screened("k"), True),
        *((Screened("k", reason), True) for reason in ("not_found", "timeout", "refused", "web_page")),
        *((Screened("k", reason), True) for reason in ("not_an_image", "bad_redirect", "too_many_redirects")),
        (Screened("k", None, 800, 600, "png"), False),
        (Screened("k", "too_small", 8, 6, "png"), False),
        (Screened("k", "unsupported_format", 800, 600, "gif"), False),
        (Screened("k", "truncated", 800, 600, "png"), False),
        (Screened("k", "opted_out"), False),
    ],
    ids=str,
)
def test_another_url_is_fetched_where_one_led_to_no_image(screened: Screened, next_: bool) -> None:
    """What is said about the image is true of every URL; a host's refusal of AI is for all of them."""
    assert gave_no_image(screened) is next_


def test_the_newest_url_that_may_be_checked_is_used() -> None:
    """One that led to an image before one that could not be read, and that before a dead one."""
    kept, unknown, dead = Screened("k", None, 800, 600, "png"), Screened("k"), Screened("k", "not_found")
    assert [is_better(kept, one) for one in (unknown, dead)] == [True, True]
    assert [is_better(unknown, one) for one in (unknown, dead)] == [False, True]
    assert [is_better(dead, one) for one in (unknown, dead)] == [False, False]


def test_only_what_is_said_of_a_url_sends_another() -> None:
    """Neither a verdict nor what the service says of an image, of itself or of a lost response."""
    assert UNFETCHED < REASONS
    assert {"origin_failed", "invalid_url", "not_authorized", "unrecognised"} == UNFETCHED
