"""Several URLs of one image, sent one after the other: a real ledger and folder, a scripted service."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from support import PASSED

from s2v_tasks import tasks
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.domain.detect import DetectResponse, Request, parse_response
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.verdict_table import screened_frame
from s2v_tasks.models import WAN22_S2V_DETECT, Screened
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import plan
from s2v_tasks.runtime.progress import progress
from s2v_tasks.runtime.stages import Stage
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import Advanced, Credentials, CurateParameters, Screening


def error(code: str, message: str = "m") -> DetectResponse:
    return parse_response(WAN22_S2V_DETECT, 400, {}, json.dumps({"code": code, "message": message}).encode())


NOT_FETCHED = error("InvalidURL.Timeout")
A = image_key("https://a.example/0.jpg")


def urls(signature: str, count: int = 1) -> list[str]:
    return [f"https://a.example/{n}.jpg?X-Amz-Date=1&X-Amz-Signature={signature}" for n in range(count)]


class Rate:
    """A constant rate limit."""

    rate_per_s = 1000.0
    source = "this test"


class HastyClock(SystemClock):
    """The machine's clock for someone who does not wait."""

    async def sleep(self, seconds: float) -> None:
        """Wait a little."""
        await super().sleep(min(seconds, 0.005))


class Service:
    """Responds by URL, and notes the calls."""

    def __init__(self, response: Callable[[str], DetectResponse]) -> None:
        self.sent: list[str] = []
        self._respond = response

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        self.sent.append(json.loads(request.body)["input"]["image_url"])
        return self._respond(self.sent[-1])


async def curated(
    folder: Path,
    rows: Sequence[str],
    service: Service,
    *,
    screen: Stage | None = None,
    run_id: str = "r1",
    dedupe: Literal["url", "bytes"] = "url",
    shard_size: int = 100,
) -> pl.DataFrame:
    """The verdicts of a run over some URLs."""
    candidates = folder / f"{run_id}.parquet"
    pl.DataFrame({"image_url": rows}).write_parquet(candidates)
    parameters = CurateParameters(
        candidates=str(candidates),
        out=str(folder / "out"),
        budget_usd=1.0,
        screening=Screening(enabled=screen is not None, dedupe=dedupe),
        advanced=Advanced(ledger=f"sqlite:///{folder}/ledger.sqlite3", shard_size=shard_size),
    )
    planned = plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))
    async with open_run(planned, run_id, Rate(), HastyClock(), client=service) as run:
        with disable_run_logger(), tasks.current_run(run):
            await process_shards(run, screen, tasks.detect.fn)
        assert run.stopped is None
        assert (progress(run).done, progress(run).total) == (run.partitions.images,) * 2
        counts = write_verdict_files(run)
        verdicts = pl.read_parquet(run.folder.verdicts)
        approved = pl.read_parquet(run.folder.approved)
        run.state.status = "published"
    assert sum(counts.values()) == len(rows) == verdicts.height
    assert approved["row"].to_list() == verdicts.filter(outcome="passed")["row"].to_list()
    return verdicts


def rows_of(verdicts: pl.DataFrame) -> list[tuple[object, ...]]:
    return verdicts.select("outcome", "reason", "duplicate_of").rows()


async def test_an_image_whose_newest_url_cant_be_fetched_is_sent_by_an_older_one(tmp_path: Path) -> None:
    """It passes once; the row with the URL that worked is the first, whichever rows repeat it."""
    service = Service(lambda url: NOT_FETCHED if "expired" in url else PASSED)
    rows = [*urls("fresh", 3), *urls("fresh"), *urls("expired", 3)]
    verdicts = await curated(tmp_path, rows, service)
    passed, copy = ("passed", None, None), "duplicate"
    assert rows_of(verdicts) == [*[passed] * 3, (copy, None, 0), *[(copy, None, n) for n in range(3)]]
    assert Counter("fresh" in url for url in service.sent) == {True: 3, False: 6}
    assert verdicts["attempts"].to_list() == [3, 3, 3, 0, 0, 0, 0]
    assert verdicts["run_cost_usd"].sum() == pytest.approx(3 * 574e-6)


async def test_three_urls_are_sent_at_most_and_the_last_response_stands(tmp_path: Path) -> None:
    """Newest first, each once more late; the oldest is left out."""
    service = Service(lambda _: NOT_FETCHED)
    rows = [url for n in range(4) for url in urls(f"s{n}")]
    verdicts = await curated(tmp_path, rows, service)
    assert service.sent == [rows[3], rows[3], rows[2], rows[2], rows[1], rows[1]]
    assert rows_of(verdicts) == [
        ("duplicate", None, 1),
        ("error", "origin_failed", None),
        ("duplicate", None, 1),
        ("duplicate", None, 1),
    ]


@pytest.mark.parametrize(
    ("response", "calls"),
    [
        (error("InvalidFile.NoHuman"), 1),
        (error("InvalidFile.Size"), 1),
        (error("DataInspectionFailed"), 1),
        (error("InvalidParameter", "the image format is bad"), 1),
        (error("InvalidURL"), 4),
        (error("InvalidParameter", "no permission for the image"), 2),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
async def test_what_is_said_of_the_image_sends_no_other_url(
    tmp_path: Path, response: DetectResponse, calls: int
) -> None:
    """The bytes are the same; what is said of the URL is."""
    service = Service(lambda _: response)
    verdicts = await curated(tmp_path, [*urls("a"), *urls("b")], service)
    assert len(service.sent) == calls
    assert verdicts["reason"].drop_nulls().to_list() == [response.reason]


async def test_a_later_run_sends_nothing_for_what_is_known_and_names_the_newest(tmp_path: Path) -> None:
    """A verdict is the image's, not the URL's."""
    service = Service(lambda _: PASSED)
    await curated(tmp_path, urls("a"), service)
    verdicts = await curated(tmp_path, [*urls("a"), *urls("b")], service, run_id="r2")
    assert len(service.sent) == 1
    assert rows_of(verdicts) == [("duplicate", None, 1), ("passed", None, None)]
    assert verdicts["from_ledger"].to_list() == [False, True]


async def test_a_copy_is_sent_where_no_url_of_the_first_can_be_fetched(tmp_path: Path) -> None:
    """The copy whose URL worked is then the first of them; a copy after it is not sent."""

    async def screen(images: pl.DataFrame) -> pl.DataFrame:
        kept = (Screened(key, None, 800, 600, "png", content_key="c" * 32) for key in images["image_key"])
        return screened_frame(kept)

    service = Service(lambda url: PASSED if "b.example" in url else NOT_FETCHED)
    rows = [*urls("old"), *urls("new"), "https://b.example/1.jpg", "https://b.example/2.jpg"]
    verdicts = await curated(tmp_path, rows, service, screen=screen, dedupe="bytes")
    assert service.sent == [rows[1], rows[1], rows[0], rows[0], rows[2]]
    assert rows_of(verdicts) == [
        ("duplicate", "same_content", 2),
        ("duplicate", "same_content", 2),
        ("passed", None, None),
        ("duplicate", "same_content", 2),
    ]


async def test_the_screen_says_which_url_is_sent(tmp_path: Path) -> None:
    """Those before it are not; those after it are, where it can't be fetched."""

    async def screen(images: pl.DataFrame) -> pl.DataFrame:
        assert images.select("url", "others").rows() == [(rows[2], [rows[1], rows[0]])]
        return screened_frame([Screened(A, None, 800, 600, "png", url_index=1)])

    service = Service(lambda url: PASSED if "s0" in url else NOT_FETCHED)
    rows = [url for n in range(3) for url in urls(f"s{n}")]
    verdicts = await curated(tmp_path, rows, service, screen=screen)
    assert service.sent == [rows[1], rows[1], rows[0]]
    assert rows_of(verdicts) == [("passed", None, None), ("duplicate", None, 0), ("duplicate", None, 0)]
    assert verdicts["width_px"].to_list() == [800] * 3


@pytest.mark.parametrize("shard_size", [1, 100])
@pytest.mark.parametrize("file_is_first", [True, False])
async def test_a_row_with_the_final_url_is_the_image_that_redirects_lead_to(
    tmp_path: Path, shard_size: int, *, file_is_first: bool
) -> None:
    """Whichever is checked first, and in a later run: one call. Another length is another image."""
    links, final = ["https://l.example/1", "https://l.example/2"], "https://a.example/final.jpg"
    other = "https://a.example/other.jpg"
    same, another = "u" + "0" * 31, "u" + "1" * 31

    async def screen(images: pl.DataFrame) -> pl.DataFrame:
        return screened_frame(
            Screened(key, None, 800, 600, "png", file_key=same if url == final else another)
            if url in (final, other)
            else Screened(key, None, 800, 600, "png", content_key=same)
            for key, url in images.select("image_key", "url").iter_rows()
        )

    service = Service(lambda _: PASSED)
    rows = [final, *links, other] if file_is_first else [*links, final, other]
    verdicts = await curated(tmp_path, rows, service, screen=screen, shard_size=shard_size)
    assert len(service.sent) == 2
    copy = ("duplicate", "same_content", 0)
    assert rows_of(verdicts) == [("passed", None, None), copy, copy, ("passed", None, None)]
    later = await curated(tmp_path, ["https://l.example/3", final], service, screen=screen, run_id="r2")
    assert len(service.sent) == 2
    assert later["check_pass"].all()
