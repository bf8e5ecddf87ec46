"""The queue of images to check, and the steps after a run's end, on a run with a real ledger and folder."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

import polars as pl
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from support import PASSED

from s2v_tasks.domain.detect import DetectResponse, Request
from s2v_tasks.domain.faces import Faces
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.verdict_table import screened_frame
from s2v_tasks.errors import Interrupted
from s2v_tasks.models import Screened
from s2v_tasks.runtime.face_check import frame
from s2v_tasks.runtime.final_steps import RunEnd
from s2v_tasks.runtime.finalize import finalize_run
from s2v_tasks.runtime.image_queue import ImageQueue, Shard
from s2v_tasks.runtime.ledger_lookup import LedgerLookup
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import plan
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.run_state import RunState
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import Advanced, Credentials, CurateParameters, Screening

URLS = [f"https://a.example/{n}.jpg" for n in range(7)]
KEYS = [image_key(url) for url in URLS]


class Rate:
    """A rate limit that never changes."""

    rate_per_s = 5.0
    source = "this test"


class NoService:
    """A client that is never used."""

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        raise AssertionError(request)


def opened(folder: Path, faces: Literal["off", "order"] = "off") -> AbstractAsyncContextManager[RunContext]:
    """A run over the images, a duplicate and a row without one, three images a shard; later continued."""
    candidates = folder / "candidates.parquet"
    if not candidates.exists():
        pl.DataFrame({"image_url": [*URLS, URLS[0], None]}).write_parquet(candidates)
    parameters = CurateParameters(
        candidates=str(candidates),
        out=str(folder / "out"),
        budget_usd=1.0,
        screening=Screening(faces=faces),
        advanced=Advanced(shard_size=3),
    )
    planned = plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))
    return open_run(planned, "r1", Rate(), client=NoService())


async def all_of(queue: ImageQueue) -> list[Shard]:
    shards = []
    while (shard := await queue.next()) is not None:
        shards.append(shard)
    return shards


def keys_of(shards: list[Shard]) -> list[list[str]]:
    return [[*shard.kept["image_key"], *shard.images["image_key"]] for shard in shards]


async def test_images_come_once_in_input_order(tmp_path: Path) -> None:
    """Duplicates and rejected rows are not among them; at the end there is nothing, again and again."""
    async with opened(tmp_path) as run:
        shards = await all_of(run.queue)
        assert keys_of(shards) == [KEYS[:3], KEYS[3:6], KEYS[6:]]
        assert all(shard.kept.is_empty() for shard in shards)
        assert await run.queue.next() is None


async def test_a_continued_run_gets_the_rest(tmp_path: Path) -> None:
    """Images that were screened and kept come first, screened-out ones not at all; both are counted."""
    async with opened(tmp_path) as run:
        results = [Screened(KEYS[4]), Screened(KEYS[5], "too_small")]
        run.partitions.add_screened(screened_frame(results))
    async with opened(tmp_path) as run:
        shards = await all_of(run.queue)
        assert keys_of(shards) == [[KEYS[4]], KEYS[:3], [KEYS[3], KEYS[6]]]
        assert [shard.images.is_empty() for shard in shards] == [True, False, False]
        assert (run.state.kept, run.state.screened_out) == (1, 1)


async def test_images_with_a_verdict_are_not_checked_again(tmp_path: Path) -> None:
    """Their verdicts are read from the ledger into the run's results."""
    async with opened(tmp_path) as run:
        for key in KEYS[:2]:
            reserved = await run.ledger.reserve(key, "a.example", 5.0)
            await run.ledger.settle(key, reserved.attempt_id, PASSED)  # type: ignore[union-attr]
    async with opened(tmp_path) as run:
        assert keys_of(await all_of(run.queue)) == [KEYS[2:5], KEYS[5:]]
        counts = write_verdict_files(run)
        assert (counts["passed"], counts["skipped"], counts["duplicate"]) == (2, 5, 1)


async def test_the_samples_order_is_the_same_whatever_is_known_of_its_images(tmp_path: Path) -> None:
    """Images with a verdict and screened ones come where they stand, not before the others of a shard."""
    async with opened(tmp_path, "order") as run:
        order = pl.concat([shard.order for shard in await all_of(run.queue)])["image_key"].to_list()
        verdict, kept, rejected, *_ = reversed(order)
        reserved = await run.ledger.reserve(verdict, "a.example", 5.0)
        await run.ledger.settle(verdict, reserved.attempt_id, PASSED)  # type: ignore[union-attr]
        run.partitions.add_screened(screened_frame([Screened(kept), Screened(rejected, "too_small")]))
        run.partitions.add_faces(frame([kept], [Faces(1, 0.9, 0.5)]))
    async with opened(tmp_path, "order") as run:
        shards = await all_of(run.queue)
        assert [shard.order["image_key"].to_list() for shard in shards] == [order[:3], order[3:6], order[6:]]
        assert pl.concat([shard.order for shard in shards])["outcome"].to_list() == [*[None] * 6, "passed"]
        assert [set(shard.images["image_key"]) for shard in shards] == [{*order[:3]}, {order[3]}, set()]
        assert [shard.kept["image_key"].to_list() for shard in shards] == [[], [kept], []]
        assert [shard.faces["image_key"].to_list() for shard in shards] == [[], [kept], []]


async def test_suspects_of_a_systemic_refusal_come_last(tmp_path: Path) -> None:
    """After all others, in input order."""
    async with opened(tmp_path) as run:
        lookup = LedgerLookup(run.ledger, run.engine, run.partitions)
        queue = ImageQueue(run.partitions, lookup, RunState(), 3, [KEYS[1], KEYS[0]])
        assert keys_of(await all_of(queue)) == [KEYS[2:5], KEYS[5:], KEYS[:2]]


async def test_a_step_after_the_end_that_fails_does_not_change_the_end(tmp_path: Path) -> None:
    """The manifest is written before, the other steps run, and the state is the run's own."""
    seen: list[RunEnd] = []

    async def broken(_run: RunContext, _end: RunEnd) -> None:
        raise RuntimeError("no such channel")

    async def noted(_run: RunContext, end: RunEnd) -> None:
        seen.append(end)

    async with opened(tmp_path) as run:
        run.engine.stop(Interrupted("stopped by a test"))
        write_verdict_files(run)
        with disable_run_logger():
            state = await finalize_run(run, steps=(broken, noted))
        assert (state.is_failed(), state.message) == (True, "stopped by a test")
        assert [end.status for end in seen] == ["stopped"]
        manifest = run.folder.read()
        assert (manifest.status, manifest.message) == ("stopped", "stopped by a test")
