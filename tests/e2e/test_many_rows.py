"""A run over many rows, killed twice: it goes on where it was, and every row has one outcome in the end."""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from many_images import ImageServer
from workbench import PRICE_USD, Bench, ended, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.http.detect_client import service_of
from s2v_tasks.adapters.storage.spill import SpillStore
from s2v_tasks.domain.candidate_table import assign_keys
from s2v_tasks.domain.verdict_table import SCREENED_SCHEMA
from s2v_tasks.models import WAN22_S2V_DETECT

SHARD = 100
UNDER_WAY = 4 * SHARD
"""Images that may be under screening when a run is killed: four shards are screened at once."""
SAMPLED = 200
"""Images that the estimate fetched: each is kept with the shard that it is in."""


@dataclass(frozen=True)
class Mix:
    """What the rows of an input are; the rest of ``rows`` is known to the ledger."""

    rows: int
    paid: int
    gone: int
    duplicates: int
    refused: int
    rate_per_s: int

    @property
    def known(self) -> int:
        """Images that an earlier run has checked."""
        return self.rows - self.paid - self.gone - self.duplicates - self.refused


@pytest.fixture
def images() -> Iterator[ImageServer]:
    with ImageServer() as server:
        yield server


def candidates(mix: Mix, origin: str) -> pl.DataFrame:
    """Rows of every kind in no order, with a column of their own that says what they are."""

    def rows(kind: str, count: int, url: str) -> pl.DataFrame:
        n = pl.int_range(count, eager=True).alias("n").to_frame()
        return n.select(pl.format(url, "n").alias("image_url"), pl.lit(kind).alias("kind"))

    known = rows("known", mix.known, origin + "/known/{}.png")
    unique = pl.concat(
        [
            known,
            rows("paid", mix.paid, origin + "/portrait-{}.png"),
            rows("gone", mix.gone, origin + "/gone/{}.png"),
            rows("refused", mix.refused, "ftp://{}"),
        ]
    ).sample(fraction=1.0, shuffle=True, seed=1)
    url, kind = pl.col("image_url") + "#again", pl.lit("duplicate").alias("kind")
    again = known.head(mix.duplicates).select(url, kind)
    return pl.concat([unique, again])


async def known_to(ledger: Path, service: str, rows: pl.DataFrame) -> None:
    """Make a ledger with verdicts on some images: none of them passed, none was billed."""
    async with Ledger(f"sqlite:///{ledger}", SystemClock()):
        pass
    keys = assign_keys(rows.lazy(), "image_url").collect()["image_key"]
    with closing(sqlite3.connect(ledger)) as db, db:
        db.executemany(
            "INSERT INTO verdicts (image_key, model, service, attempt_id, run_id, outcome, reason,"
            " check_pass, billing, checked_at)"
            " VALUES (?, ?, ?, 0, 'before', 'failed', 'no_human', 0, 'not_billed', 1)",
            [(key, WAN22_S2V_DETECT.model, service) for key in keys],
        )
    db.close()


def lost_twice(bench: Bench) -> set[str]:
    """Images by key whose calls were interrupted by both kills: none of them is sent a third time."""
    with closing(sqlite3.connect(bench.out / "ledger.sqlite3")) as db:
        rows = db.execute(
            "SELECT image_key FROM attempts WHERE state = 'unknown' GROUP BY image_key HAVING count(*) > 1"
        ).fetchall()
    return {key for (key,) in rows}


def finished(bench: Bench, paths: dict[str, str]) -> list[str]:
    """The images that need no screening any more, by the run's files."""
    (run_dir,) = (bench.out / "runs").iterdir()
    screened = SpillStore(run_dir / "work" / "screened", SCREENED_SCHEMA)
    return [paths[key] for number in screened.partitions() for key in screened.read(number)["image_key"]]


@pytest.mark.parametrize(
    "mix",
    [
        pytest.param(Mix(20_000, 100, 2_000, 2_000, 200, 50), id="20,000", marks=pytest.mark.ci),
        pytest.param(
            Mix(1_000_000, 5_000, 50_000, 100_000, 10_000, 400), id="1,000,000", marks=pytest.mark.slow
        ),
    ],
)
async def test_a_run_over_many_rows_killed_twice_continues_where_it_was(
    tmp_path: Path, prefect_api: str, images: ImageServer, mix: Mix
) -> None:
    """One outcome for each row; no finished shard is screened again; no image is lost but in both kills."""
    set_rate(mix.rate_per_s)
    with Emulator(EmulatorOptions(limit=None, fetch_images=False)) as emulator:
        bench = Bench(tmp_path, emulator)
        rows = candidates(mix, images.origin)
        path = bench.candidates(rows["image_url"], kind=rows["kind"])
        bench.out.mkdir()
        await known_to(bench.out / "ledger.sqlite3", service_of(emulator.base_url), rows.filter(kind="known"))
        keyed = assign_keys(rows.filter(pl.col("kind").is_in(["paid", "gone"])).lazy(), "image_url").collect()
        paths = {key: urlsplit(url).path for key, url in keyed.select("image_key", "url").iter_rows()}
        command = bench.curating(path, "--min-pass-rate", 0, "--budget-usd", 2 * mix.paid * PRICE_USD)

        before: list[tuple[list[str], Counter[str]]] = []
        for share in (0.45, 0.7):
            run = bench.start(*command)
            wanted = share * (mix.paid + mix.gone)
            wait_until(lambda r=run, w=wanted: r.poll() is not None or len(images.fetched) > w, 900)
            os.killpg(run.pid, signal.SIGKILL)
            assert ended(run).status == -signal.SIGKILL
            before.append((finished(bench, paths), images.fetched.copy()))
        ran = ended(bench.start(*command), 1800)
        assert ran.status == 0, ran.out + ran.err
        assert "continuing run" in ran.err

        for done, fetched in before:
            assert len(done) >= 0.1 * len(paths)
            assert all(images.fetched[path] == fetched[path] for path in done)
        again = sum(count - 1 for count in images.fetched.values())
        assert set(images.fetched) == set(paths.values())
        assert again <= 2 * (UNDER_WAY + SAMPLED)
        paid = bench.billed_urls()
        lost = len(paid) - len(set(paid))

    verdicts, unknown = ran.verdicts, lost_twice(bench)
    assert set(verdicts.filter(outcome="unknown")["image_key"]) == unknown
    assert set(verdicts.filter(outcome="passed")["image_url"]) <= set(paid)
    assert len(unknown) <= mix.paid / 10
    assert verdicts["row"].equals(pl.int_range(mix.rows, eager=True).alias("row"))
    assert verdicts["image_url"].equals(rows["image_url"])
    expected = {
        ("known", "failed"): mix.known,
        ("paid", "passed"): mix.paid - len(unknown),
        ("paid", "unknown"): len(unknown),
        ("gone", "screened_out"): mix.gone,
        ("refused", "screened_out"): mix.refused,
        ("duplicate", "duplicate"): mix.duplicates,
    }
    counts = verdicts.group_by("kind", "outcome").len().rows()
    assert Counter({(kind, outcome): count for kind, outcome, count in counts}) == Counter(expected)
    assert ran.manifest["dataset_cost_usd"] >= (mix.paid - len(unknown) + lost) * PRICE_USD - 1e-9
    assert not (ran.run_dir / "work").exists()
