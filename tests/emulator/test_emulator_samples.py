"""The sample images: what they are, how they are served, and the list of candidates."""

import io
from collections import Counter
from pathlib import Path

import httpx
import polars as pl
import pytest
from emulator_caller import Caller
from PIL import Image

from s2v_tasks.emulator.sample_routes import byte_range
from s2v_tasks.emulator.samples import NO_SUCH_HOST_URL, SAMPLES, candidates, portrait, write_candidates


@pytest.mark.parametrize("image_format", ["jpeg", "png", "bmp", "webp"])
def test_a_portrait_is_the_image_that_was_requested(image_format: str) -> None:
    """Format and size are as requested, the same seed gives the same bytes and another seed others."""
    data = portrait(3, 420, 500, image_format)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format or "").lower() == image_format
        assert image.size == (420, 500)
    assert portrait(3, 420, 500, image_format) == data
    assert len({portrait(seed, 420, 500, image_format) for seed in range(20)}) == 20


def test_every_sample_has_the_verdict_of_its_list(caller: Caller) -> None:
    """Of the 100 candidates 46 images need a paid call and 35 of those pass, as the docstring states."""
    rows = candidates(caller.emulator.base_url)
    caller.http.get(caller.url("flaky-107.jpg"))  # its first request fails, from any client
    rules = {row["image_url"]: caller.send(row["image_url"]).headers["x-emulator-rule"] for row in rows}
    results = Counter()
    for url, decided in rules.items():
        if decided == "one-person" or decided.startswith("word:"):
            # One image for all spellings of its URL: the normal form of these.
            results[url.lower().partition("?")[0].partition("#")[0]] = decided == "one-person"
    assert len(rows) == 100
    assert len(results) == 46
    assert sum(results.values()) == 35
    unreachable = [url for url, decided in rules.items() if decided.startswith("fetch:")]
    assert len(unreachable) / 92 < 0.2
    assert set(rules.values()) >= {"format", "resolution", "fetch:status", "fetch:redirects", "fetch:refused"}


def test_candidates_are_the_same_every_time_and_stay_on_loopback() -> None:
    """Captions are unique, sources are the three segments, and no row leads off this machine."""
    rows = candidates("http://127.0.0.1:8000/api/v1")
    assert rows == candidates("http://127.0.0.1:8000")
    assert len({row["person"] for row in rows}) == 100
    assert {row["source"] for row in rows} == {"studio", "web", "phone"}
    assert {httpx.URL(row["image_url"]).host for row in rows} == {"127.0.0.1", "localhost"}
    assert len({row["image_url"] for row in rows}) == 98


def test_candidates_are_written_as_parquet(tmp_path: Path) -> None:
    """The file holds the rows with their columns, and no unfinished file is left."""
    path = tmp_path / "candidates.parquet"
    write_candidates(path, "http://127.0.0.1:8000/api/v1")
    assert pl.read_parquet(path).to_dicts() == candidates("http://127.0.0.1:8000/api/v1")
    assert list(tmp_path.iterdir()) == [path]


def test_a_host_without_an_address_is_an_invalid_url(caller: Caller) -> None:
    """A name that no resolver knows differs from a refused connection."""
    response = caller.send(NO_SUCH_HOST_URL)
    assert response.json()["code"] in {
        "InvalidURL",
        "InvalidURL.Timeout",
    }  # the latter: a resolver that hangs


def test_the_protected_image_is_closed_to_all_but_the_emulator(caller: Caller) -> None:
    """A free fetch gets a 403 where the paid call gets the image."""
    assert caller.http.get(caller.url("protected-106.jpg")).status_code == 403
    assert caller.send_sample("protected-106.jpg").json()["output"]["check_pass"] is True


def test_the_flaky_image_fails_once_and_again_after_a_reset(caller: Caller) -> None:
    """A failing server recovers."""
    url = caller.url("flaky-107.jpg")
    assert [caller.http.get(url).status_code for _ in range(3)] == [500, 200, 200]
    caller.emulator.reset()
    assert caller.http.get(url).status_code == 500


@pytest.mark.parametrize(("name", "at_least"), [("exif-103.jpg", 65_000), ("segments-104.jpg", 300_000)])
def test_padded_images_hold_their_size_behind_the_padding(name: str, at_least: int) -> None:
    """The frame header of these files is where no small first read reaches."""
    data = SAMPLES[name].content()
    assert data.index(b"\xff\xc0") > at_least
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (480, 640)


def test_ranges_are_served_but_by_the_sample_that_ignores_them(caller: Caller) -> None:
    """206 with the right bytes, 416 beyond the end, and 200 with everything where ranges are ignored."""
    url = caller.url("portrait-000.jpg")
    whole = caller.http.get(url)
    part = caller.http.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    beyond = caller.http.get(url, headers={"Range": "bytes=99999999-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")
    ignored = caller.http.get(caller.url("no-range-105.jpg"), headers={"Range": "bytes=0-9"})
    assert ignored.status_code == 200
    assert len(ignored.content) > 1000
    assert caller.http.head(url).headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-3", (0, 4)),
        ("bytes=4-", (4, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=8-99", (8, 10)),
        ("bytes=3-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=0-3", None),
    ],
)
def test_a_range_header_is_read_as_the_rfc_says(header: str | None, expected: tuple[int, int] | None) -> None:
    """First and last byte are inclusive, a suffix counts from the end, what is odd is ignored."""
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_a_range_outside_the_file_can_not_be_served(header: str) -> None:
    """Outside is an error, not an empty part."""
    with pytest.raises(IndexError):
        byte_range(header, 10)


def test_any_number_makes_an_image_and_nonsense_does_not(caller: Caller) -> None:
    """Made images are distinct by their number; unknown names and sizes are refused."""
    images = {caller.http.get(caller.url(f"gen/portrait-{n}.jpg")).content for n in range(50)}
    assert len(images) == 50
    for name in ("gen/elephant-1.jpg", "gen/portrait-1.gif", "gen/portrait-1.jpg?width=0", "unknown.jpg"):
        assert caller.http.get(caller.url(name)).status_code == 404
    assert caller.http.get(caller.url("gen/portrait-1.jpg?width=wide")).status_code == 400
