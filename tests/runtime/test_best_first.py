"""The face check and the order that follows from it: real files, child processes and a ledger."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from support import PASSED, JumpingClock

from s2v_tasks import tasks
from s2v_tasks.adapters.images.face_detector import is_model, model_file
from s2v_tasks.domain import audit, faces, gate_rules
from s2v_tasks.domain.detect import DetectResponse, Request, parse_response
from s2v_tasks.domain.faces import Faces
from s2v_tasks.emulator import Emulator
from s2v_tasks.errors import Interrupted, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.face_check import check_model, frame
from s2v_tasks.runtime.face_queue import CHUNK_ROWS, FaceQueue
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import Plan, plan
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import Advanced, Credentials, CurateParameters, Screening, Source, Thresholds

FAILED = parse_response(
    WAN22_S2V_DETECT, 200, {}, json.dumps({"output": {"check_pass": False, "humanoid": False}}).encode()
)
CLEAR, NOTHING = Faces(1, 0.95, 0.5), Faces(0)


class Rate:
    """A rate limit that is 0 until the faces of so many images were checked."""

    source = "this test"

    def __init__(self, images: int) -> None:
        self.run: RunContext | None = None
        self._images = images

    @property
    def rate_per_s(self) -> float:
        """Read before each call."""
        is_ready = self.run is not None and face_checked(self.run) == self._images
        return 20.0 if is_ready else 0.0


def face_checked(run: RunContext) -> int:
    """The images whose faces were checked."""
    return sum(run.partitions.faces(n).height for n in range(run.partitions.count))


class Service:
    """Portraits pass; notes the calls."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        self.sent.append(json.loads(request.body)["input"]["image_url"])
        return PASSED if "portrait" in self.sent[-1] else FAILED


def images(names: list[str]) -> pl.DataFrame:
    columns = {"image_key": names, "url": [f"https://a.example/{name}" for name in names]}
    return pl.DataFrame(columns).with_columns(
        pl.lit(None, pl.List(pl.String)).alias("others"),
        pl.lit(0, pl.Int64).alias("url_index"),
        pl.lit(None, pl.String).alias("content_key"),
    )


def put(queue: FaceQueue, shard: int, names: list[str], *seen: Faces, **columns: list[Any]) -> None:
    """Add a shard; ``columns``: ``segment`` and ``outcome`` of each image, if not null."""
    schema = {"image_key": pl.String, "segment": pl.String, "outcome": pl.String}
    nothing: list[Any] = [None] * len(names)
    order = pl.DataFrame({name: columns.get(name, nothing) for name in schema} | {"image_key": names}, schema)
    to_check = order["outcome"].is_null()
    seen_there = order.join(frame(names, seen), on="image_key", how="left", maintain_order="left")
    queue.put(shard, seen_there, images(names).filter(to_check) if names else pl.DataFrame())


def taken(queue: FaceQueue, count: int, *, for_sample: bool = False) -> list[str]:
    found = queue.take_sample(count) if for_sample else queue.take(count)
    return found["image_key"].to_list()


def test_an_image_is_taken_once_and_the_likeliest_is_next(tmp_path: Path) -> None:
    """The sample's order is that of the shards, whichever came first; it waits for one that is missing."""
    queue = FaceQueue(tmp_path / "queue")
    put(queue, 1, ["c", "d"], NOTHING, CLEAR)
    assert taken(queue, 5, for_sample=True) == []
    put(queue, 0, ["a", "b"], NOTHING, Faces(2, 0.9, 0.4))
    assert taken(queue, 1) == ["d"]
    assert taken(queue, 1, for_sample=True) == ["a"]
    put(queue, 2, [])
    put(queue, 3, ["e"], CLEAR)
    assert taken(queue, 9) == ["e", "b", "c"]
    assert taken(queue, 9) == taken(queue, 9, for_sample=True) == []


def test_the_first_images_of_each_segment_come_early(tmp_path: Path) -> None:
    """Those that have a result already count; then the order goes on where the early ones end."""
    queue, n = FaceQueue(tmp_path / "queue"), audit.EARLY
    names = [f"a{number:03}" for number in range(n + 5)]
    known = {"segment": ["a"] * len(names), "outcome": [*["failed"] * (n - 2), *[None] * 7]}
    put(queue, 0, names, *[NOTHING] * len(names), **known)
    put(queue, 1, ["b", "c"], CLEAR, CLEAR, segment=["b", "c"])
    queue.pass_decided()
    assert queue.is_early
    *_, whole = queue.results.run.prefixes()
    assert whole.misses == n - 2  # an early image that waits holds up the others, not the run's results
    assert taken(queue, 3, for_sample=True) == [*names[n - 2 : n], "b"]
    assert taken(queue, 1) == ["c"]
    queue.pass_decided()
    assert not queue.is_early
    assert taken(queue, 2, for_sample=True) == names[n : n + 2]


def test_no_more_images_of_a_hopeless_segment_are_taken(tmp_path: Path) -> None:
    """What the sample has of it shows that it is; in the run's results its other images are no attempts."""
    hopeless: set[str | None] = set()
    queue, names = FaceQueue(tmp_path / "queue", hopeless), [f"{number:02}" for number in range(24)]
    put(queue, 0, names, *[CLEAR] * 24, segment=["a", "b"] * 12)
    first = queue.take_sample(16)
    queue.settle(dict(zip(first["number"], ["failed", "passed"] * 8, strict=True)))
    hopeless |= set(queue.results.newly_hopeless(0.6))
    assert hopeless == {"a"}
    assert queue.left_out == 4
    assert taken(queue, 2) == ["17", "19"]
    assert taken(queue, 9, for_sample=True) == ["21", "23"]
    assert taken(queue, 9) == []
    queue.pass_decided()
    *_, whole = queue.results.run.prefixes()
    assert (whole.hits, whole.misses, whole.may_hit) == (8, 8, 4)


def test_all_but_a_few_images_wait_on_disk(tmp_path: Path) -> None:
    """None is lost or repeated, and a bucket's images come in the order in which they came."""
    queue, names = FaceQueue(tmp_path / "queue"), [f"{n:06}" for n in range(3 * CHUNK_ROWS + 7)]
    for shard in range(0, len(names), 1000):
        part = names[shard : shard + 1000]
        put(queue, shard // 1000, part, *[NOTHING] * len(part))
    assert len(list((tmp_path / "queue").iterdir())) == 6  # three of the bucket, three of the sample
    found: list[str] = []
    while some := taken(queue, 997):
        found += some
    assert found == names


@pytest.mark.parametrize("content", [None, b"another model"])
def test_a_missing_extra_or_another_model_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    """The figures are of one model, so no other is used."""
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"leave --faces out|or leave"):
        check_model(path if content is not None else None)


async def curated(folder: Path, emulator: Emulator, service: Service, calls: int) -> tuple[pl.DataFrame, int]:
    """The verdicts of a run over images of the emulator, and how many files were decoded."""
    subjects = ["scenery", "crowd", "portrait", "nobody"]
    urls = [f"{emulator.origin}/samples/gen/{subjects[n % 4]}-{n}.jpg" for n in range(48)]
    urls += [f"{emulator.origin}/samples/gen/portrait-99.jpg?status=404", urls[0]]
    candidates = folder / "candidates.parquet"
    if not candidates.exists():
        pl.DataFrame({"image_url": urls}).write_parquet(candidates)
    parameters = CurateParameters(
        candidates=str(candidates),
        out=str(folder / "out"),
        budget_usd=(calls + 0.5) * 574e-6,
        screening=Screening(faces="order", allow_private_hosts=True),
        thresholds=Thresholds(min_pass_rate=0.05),
        advanced=Advanced(shard_size=10),
    )
    planned = plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))
    rate = Rate(48)
    async with open_run(planned, "r1", rate, client=service) as run:
        rate.run = run
        with disable_run_logger(), tasks.current_run(run):
            await process_shards(run, tasks.screen.fn, tasks.detect.fn)
        assert run.stopped is None
        decoded = face_checked(run)
        counts = write_verdict_files(run)
        verdicts = pl.read_parquet(run.folder.verdicts)
    assert sum(counts.values()) == 50
    return verdicts, decoded


async def test_the_budget_goes_to_the_likeliest_and_to_the_sample(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """An image is chosen when its call can be sent, not before: one that is likelier may come meanwhile.

    The sample's rows are marked; every row has its outcome.
    """
    assert is_model((model_file() or Path()).read_bytes())
    service = Service()
    verdicts, decoded = await curated(tmp_path, s2v_emulator, service, 20)
    assert len(service.sent) == len(set(service.sent)) == 20
    assert decoded == 48
    passed = verdicts.filter(outcome="passed").height
    assert passed >= 10, service.sent  # 5 of 20 in input order
    audited = verdicts.filter("audited")
    assert audited.filter(pl.col("outcome") == "skipped").is_empty()
    assert 0 < audited.height < 48
    seen = verdicts.filter(pl.col("image_url").str.contains("portrait-2.jpg")).row(0, named=True)
    assert (seen["faces_seen"], seen["face_score"] > 0.6, 0.1 < seen["face_height_share"] < 0.6) == (
        1, True, True,
    )  # fmt: skip
    assert verdicts.row(48, named=True)["reason"] == "not_found"
    assert verdicts.row(49, named=True)["faces_seen"] == verdicts.row(0, named=True)["faces_seen"] == 0


@pytest.mark.ci
async def test_without_a_limit_all_are_checked_and_the_sample_is_everything(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """Nothing is dropped, and the pass rate is that of all images."""
    service = Service()
    verdicts, _ = await curated(tmp_path, s2v_emulator, service, 1000)
    assert len(service.sent) == len(set(service.sent)) == 48
    images_of = verdicts.filter(pl.col("outcome") != "duplicate")
    assert images_of["audited"].to_list() == [True] * 49
    assert set(verdicts.columns) > set(faces.COLUMNS)


@pytest.mark.ci
async def test_a_continued_run_decodes_and_sends_nothing_twice(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """What an earlier process has seen of faces is read from its folder."""
    service = Service()
    _, decoded = await curated(tmp_path, s2v_emulator, service, 20)
    again, decoded_again = await curated(tmp_path, s2v_emulator, service, 20)
    assert decoded == decoded_again == 48
    assert len(service.sent) == 20
    assert again.filter(pl.col("image_url").str.contains("portrait-2.jpg"))["faces_seen"].item() == 1


class TwoSources:
    """Of two sources one passes; the run is interrupted at the calls of these numbers."""

    def __init__(self, *interrupted_at: int) -> None:
        self.sent: list[str] = []
        self.clock = JumpingClock()
        self.run: RunContext | None = None
        self._interrupted_at = interrupted_at

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        self.sent.append(json.loads(request.body)["input"]["image_url"])
        if len(self.sent) in self._interrupted_at and self.run is not None:
            self.run.engine.stop(Interrupted.by("SIGTERM"))
        return PASSED if "of=good" in self.sent[-1] else FAILED

    def of(self, source: str) -> int:
        """The calls for a source."""
        return sum(f"of={source}" in url for url in self.sent)


class Steady:
    """A rate limit."""

    source = "this test"
    rate_per_s = 5.0


def plan_of(
    folder: Path,
    emulator: Emulator,
    sources: list[str],
    calls: int,
    segment_column: str | None = None,
    thresholds: Thresholds | None = None,
) -> Plan:
    """A run over images of these sources, all with one clear face; the budget covers so many calls."""
    urls = [f"{emulator.origin}/samples/gen/portrait-{n}.jpg?of={of}" for n, of in enumerate(sources)]
    pl.DataFrame({"image_url": urls, "source": sources}).write_parquet(folder / "candidates.parquet")
    parameters = CurateParameters(
        candidates=str(folder / "candidates.parquet"),
        out=str(folder / "out"),
        budget_usd=(calls + 0.5) * 574e-6,
        source=Source(segment_column=segment_column),
        thresholds=thresholds or Thresholds(),
        screening=Screening(faces="order", allow_private_hosts=True),
        advanced=Advanced(shard_size=20),
    )
    return plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))


async def in_two_sources(
    planned: Plan, service: TwoSources, hopeless: Collection[str] = ()
) -> tuple[pl.DataFrame, set[str | None]]:
    """The verdicts of a run, or of what an interrupted one has done, and what it found hopeless.

    ``hopeless``: what an earlier process has found.
    """
    async with open_run(planned, "r1", Steady(), service.clock, client=service) as run:
        service.run = run
        if hopeless:
            run.partitions.set_hopeless(hopeless)
        with disable_run_logger(), tasks.current_run(run):
            await process_shards(run, tasks.screen.fn, tasks.detect.fn)
        write_verdict_files(run)
        return pl.read_parquet(run.folder.verdicts), run.state.hopeless


async def order_of(planned: Plan, service: TwoSources) -> pl.DataFrame:
    """The sample's order as a continued run reads it, with the results of earlier processes."""
    parts: list[pl.DataFrame] = []
    async with open_run(planned, "r1", Steady(), service.clock, client=service) as run:
        while (shard := await run.queue.next()) is not None:
            parts.append(shard.order)
    return pl.concat(parts)


@pytest.mark.ci
async def test_a_source_that_cannot_reach_the_pass_rate_leaves_the_money_to_the_other(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """Its rest is hopeless, also to a later process, whether it was interrupted before or after the stop."""
    planned = plan_of(tmp_path, s2v_emulator, ["good", "bad"] * 70, calls=70, segment_column="source")
    service = TwoSources(6, 60)
    assert not (await in_two_sources(planned, service))[1]
    order = await order_of(planned, service)
    assert order.height == 140
    assert order.sort(audit.position(0, 1)).equals(order)
    known = set(order.drop_nulls("outcome").select("segment", "outcome").iter_rows())
    assert known <= {("good", "passed"), ("bad", "failed")}
    assert order["outcome"].count() == len(service.sent)
    assert (await in_two_sources(planned, service))[1] == {"bad"}
    stopped_at = service.of("bad")
    verdicts, hopeless = await in_two_sources(planned, service)
    assert hopeless == {"bad"}
    assert len(service.sent) == len(set(service.sent)) == 70
    assert service.of("bad") == stopped_at <= 40
    left = verdicts.filter(outcome="skipped").select("source", "reason").unique()
    assert set(left.rows()) == {("bad", "hopeless"), ("good", "budget_exhausted")}
    assert 0 < verdicts.filter("audited", source="bad").height <= stopped_at
    facts = gate_rules.read_facts(gate_rules.facts_of(verdicts.lazy(), "source").collect())
    assert [fact.pass_rate for fact in facts[1:]] == [0.0, 1.0]
    assert facts[0].skipped_share == (70 - service.of("good")) / 140


@pytest.mark.ci
async def test_a_source_that_passes_alone_is_checked_whatever_the_others_do(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """Where only passing segments are published, the pass rate of the run as a whole stops nothing."""
    sources = [of for n in range(20) for of in ("good", *(f"bad{n % 15 * 3 + small}" for small in range(3)))]
    found = {}
    for publish in ("within_budget", "passing_segments"):
        (folder := tmp_path / publish).mkdir()
        thresholds = Thresholds(min_pass_rate=0.6, publish=publish)
        planned = plan_of(folder, s2v_emulator, sources, 100, "source", thresholds)
        _, hopeless = await in_two_sources(planned, service := TwoSources())
        found[publish] = hopeless, len(service.sent)
    assert found["passing_segments"] == (set(), len(sources))
    assert found["within_budget"][0] == {None}
    assert found["within_budget"][1] < len(sources)


@pytest.mark.ci
async def test_images_of_a_hopeless_source_are_neither_fetched_nor_sent(
    tmp_path: Path, s2v_emulator: Emulator
) -> None:
    """An earlier process has found it to be so: nothing is known of its images."""
    planned = plan_of(tmp_path, s2v_emulator, ["good", "bad"] * 6, calls=100, segment_column="source")
    service = TwoSources()
    verdicts, _ = await in_two_sources(planned, service, {"bad"})
    assert (service.of("good"), service.of("bad")) == (6, 0)
    seen = verdicts.filter(pl.col("width_px").is_not_null() & pl.col("faces_seen").is_not_null())
    assert set(seen["source"]) == set(verdicts.filter("audited")["source"]) == {"good"}
    assert verdicts.filter(reason="hopeless")["source"].to_list() == ["bad"] * 6


@pytest.mark.ci
async def test_a_run_without_segments_stops_as_a_whole(tmp_path: Path, s2v_emulator: Emulator) -> None:
    """The rest is hopeless, whatever the budget."""
    planned, service = plan_of(tmp_path, s2v_emulator, ["bad"] * 60, calls=100), TwoSources()
    verdicts, hopeless = await in_two_sources(planned, service)
    assert hopeless == {None}
    assert 7 <= len(service.sent) < 50
    assert verdicts.filter(reason="hopeless").height == 60 - len(service.sent)
    (facts,) = gate_rules.read_facts(gate_rules.facts_of(verdicts.lazy()).collect())
    assert (facts.pass_rate, facts.skipped_share) == (0.0, 0.0)
