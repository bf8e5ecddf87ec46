"""Rules that drop images: proven by the sample, switched off where it shows them to be wrong."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from support import PASSED
from test_best_first import FAILED

from s2v_tasks import tasks
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.domain import verdict_table
from s2v_tasks.domain.detect import DetectResponse, Request
from s2v_tasks.domain.faces import COLUMNS, Faces, FileFaces
from s2v_tasks.errors import Interrupted
from s2v_tasks.models import Facts, Screened
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.face_check import RULES, frame
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import plan
from s2v_tasks.runtime.progress import progress
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import (
    Advanced,
    Credentials,
    CurateParameters,
    Screening,
    Source,
    Thresholds,
)


class Rate:
    """As fast as the ledger is."""

    source, rate_per_s = "this test", 100.0


class Service:
    """Images whose names say so pass; notes the calls. The run is interrupted at one of them, if named."""

    def __init__(self, interrupted_at: int | None) -> None:
        self.sent: list[str] = []
        self.run: RunContext | None = None
        self._interrupted_at = interrupted_at

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        self.sent.append(json.loads(request.body)["input"]["image_url"])
        if len(self.sent) == self._interrupted_at and self.run is not None:
            self.run.engine.stop(Interrupted.by("SIGTERM"))
        return PASSED if "good" in self.sent[-1] else FAILED


Ran = tuple[pl.DataFrame, Facts, list[str]]


async def curated(
    folder: Path,
    images: list[tuple[str, str, int | None]],
    faces: str = "drop",
    budget_calls: int = 10_000,
    run_id: str = "r1",
    interrupted_at: int | None = None,
    **thresholds: Any,
) -> Ran:
    """The verdicts of a run, its facts and its calls; an image is its name, source and number of faces.

    Screen and face check are done: an earlier process has left their results, but for images that had a
    verdict already; the cache holds them too. ``dead`` images were screened out. ``interrupted_at``: a call.
    """
    urls = [f"https://a.example/{n}-{name}.jpg" for n, (name, _, _) in enumerate(images)]
    candidates = folder / "candidates.parquet"
    if not candidates.exists():
        sources = [source for _, source, _ in images]
        pl.DataFrame({"image_url": urls, "source": sources}).write_parquet(candidates)
    parameters = CurateParameters(
        candidates=str(candidates),
        out=str(folder / "out"),
        budget_usd=(budget_calls + 0.5) * 574e-6,
        source=Source(segment_column="source"),
        screening=Screening(faces=faces),
        thresholds=Thresholds(min_pass_rate=0.0, **thresholds),
        advanced=Advanced(report_images=False),
    )
    planned = plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))
    service = Service(interrupted_at)
    async with open_run(planned, run_id, Rate(), client=service) as run:
        service.run = run
        if run.partitions.screened(0).is_empty():
            await know(run, images)
        with disable_run_logger(), tasks.current_run(run):
            await process_shards(run, tasks.screen.fn, tasks.detect.fn)
            assert (run.stopped is None) == (interrupted_at is None)
            if run.stopped is None and len(service.sent) < budget_calls:  # what is dropped is not waited for
                assert (progress(run).done, progress(run).left_s or 0) == (run.partitions.images, 0)
            write_verdict_files(run)
            report = await tasks.gate.fn(run.folder.path, parameters.thresholds, "source")
        return pl.read_parquet(run.folder.verdicts), report.facts[0], service.sent


async def know(run: RunContext, images: list[tuple[str, str, int | None]]) -> None:
    """Store what screen and face check found of images."""
    keys = run.partitions.unique_images(0).sort("row")["image_key"].to_list()
    screened = [
        Screened(key, "dead_link") if name == "dead" else Screened(key, None, 800, 600, "jpeg")
        for key, (name, _, _) in zip(keys, images, strict=True)
    ]
    run.partitions.add_screened(verdict_table.screened_frame(screened))
    seen = [Faces() if n is None else Faces(n, 0.95, 0.5) if n else Faces(0) for _, _, n in images]
    statuses = await run.ledger.image_statuses(keys)
    of_this_run = [(key, of) for key, of in zip(keys, seen, strict=True) if statuses[key].verdict is None]
    run.partitions.add_faces(frame(*zip(*of_this_run, strict=True)))
    cache, options = run.screener.headers, run.screener.screening
    await cache.put(screened, options, SystemClock().utcnow())
    files = {key: FileFaces(of, None) for key, of in zip(keys, seen, strict=True)}
    await cache.put_faces(files, options, RULES)


def outcomes(verdicts: pl.DataFrame, name: str) -> dict[tuple[str, str | None], int]:
    """How many images of a name have each outcome and reason."""
    of = verdicts.filter(pl.col("image_url").str.contains(f"-{name}"))
    return {(outcome, reason): n for outcome, reason, n in of.group_by("outcome", "reason").len().iter_rows()}


@pytest.mark.ci
async def test_an_honest_rule_is_proven_and_saves_calls(tmp_path: Path) -> None:
    """No good image is dropped, nor one that is unknown; the sample goes on until the bound holds."""
    images = [("good", "a", 1), ("good", "b", 1), ("scenery", "a", 0), ("good", "a", 1)] * 100
    images += [("goodunknown", "b", None), ("crowd", "a", 3)] * 10
    verdicts, facts, sent = await curated(tmp_path, images)
    dropped = verdicts.filter(reason="no_face")
    assert dropped["outcome"].unique().to_list() == ["screened_out"]
    assert dropped["faces_seen"].unique().to_list() == [0]
    assert dropped.height == facts.dropped == len(images) - len(sent)
    assert dropped.height > 30, "the sample took more than the proof needs"
    assert outcomes(verdicts, "good") == {("passed", None): 310}
    assert outcomes(verdicts, "crowd") == {("failed", "check_failed"): 10}
    assert facts.missed_share_upper is not None
    assert facts.missed_share_upper <= 0.05
    assert facts.no_face_missed_upper == facts.missed_share_upper
    assert facts.several_faces_missed_upper is None
    in_run = verdicts.filter("audited_in_run")
    assert in_run.filter(pl.col("outcome") == "screened_out").is_empty()
    assert verdicts.filter("audited").height >= in_run.height


@pytest.mark.ci
async def test_a_rule_that_drops_good_images_of_one_source_is_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sample shows it, every image that it dropped is checked, and nothing is given up."""
    images = [("good", "a", 1), ("nobody", "a", 0), ("good", "b", 1)] * 80 + [("goodhidden", "c", 0)] * 60
    verdicts, facts, sent = await curated(tmp_path, images)
    assert "the rule no_face drops no more images" in caplog.text
    assert len(sent) == len(images)
    assert verdicts.filter(reason="no_face").is_empty()
    assert outcomes(verdicts, "goodhidden") == {("passed", None): 60}
    assert (facts.dropped, facts.missed_share_upper) == (0, None)


@pytest.mark.ci
async def test_a_bound_that_the_budget_did_not_prove_closes_the_gate(tmp_path: Path) -> None:
    """What was dropped is given up: the fact says so, whatever of the rest was published."""
    images = [("good", "a", 1), ("nobody", "a", 0)] * 400
    verdicts, facts, sent = await curated(tmp_path, images, budget_calls=60, publish="within_budget")
    assert len(sent) == 60
    assert facts.dropped
    assert verdicts.filter(reason="budget_exhausted")["faces_seen"].unique().to_list() == [1]
    assert facts.missed_share_upper is not None
    assert facts.missed_share_upper > 0.05


async def test_where_the_proof_would_check_most_images_they_are_only_ordered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and every image is checked."""
    verdicts, facts, sent = await curated(tmp_path, [("good", "a", 1), ("nobody", "a", 0)] * 20)
    assert caplog.text.count("images are dropped by no rule, only ordered") == 1
    assert len(sent) == 40
    assert verdicts.filter(reason="no_face").is_empty()
    assert facts.dropped == 0


@pytest.mark.ci
async def test_a_continued_run_with_most_images_screened_out_uses_its_rule_as_before(tmp_path: Path) -> None:
    """What was checked before it was interrupted counts as kept: the proof is not out of reach now."""
    images = ([("good", "a", 1), ("nobody", "a", 0)] + [("dead", "a", None)] * 3) * 200
    await curated(tmp_path, images, interrupted_at=230, max_missed_share=0.1)
    verdicts, facts, _ = await curated(tmp_path, images, max_missed_share=0.1)
    assert outcomes(verdicts, "good") == {("passed", None): 200}
    assert facts.dropped
    assert facts.missed_share_upper is not None
    assert facts.missed_share_upper <= 0.1


@pytest.mark.ci
async def test_a_later_run_proves_nothing_by_verdicts_of_an_earlier_sample(tmp_path: Path) -> None:
    """The same images are the sample's again: those that the rule would drop count as such."""
    images = [("good", "a", 1), ("nobody", "a", 0)] * 60 + [("goodhidden", "a", 0)] * 10
    _, first, sent = await curated(tmp_path, images, budget_calls=88, max_missed_share=0.25)
    assert len(sent) == 88
    assert first.missed_share_upper is not None
    assert first.missed_share_upper > 0.25
    verdicts, second, _ = await curated(tmp_path, images, budget_calls=1, run_id="r2", max_missed_share=0.25)
    assert second.missed_share_upper == pytest.approx(first.missed_share_upper, abs=0.05)
    known = verdicts.filter("from_ledger")
    assert known.height == 88
    assert known.select(*COLUMNS).null_count().row(0) == (0, *2 * (known["faces_seen"].eq(0).sum(),))
