"""One measurement of ``candidates.py``, in a process of its own: ``_candidates.py JOB ROWS FOLDER``."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from s2v_tasks.domain.candidate_table import assign_keys
from s2v_tasks.domain.image_url import image_key, url_rejection_reason
from s2v_tasks.domain.verdict_table import SCHEMA

MODEL, SERVICE, BASE_URL = "wan2.2-s2v-detect", "http://127.0.0.1:9", "http://127.0.0.1:9/api/v1"
BATCH_ROWS = 250_000
SHARD_SIZE = 1_000
KNOWN_OF_256 = 13
"""About 5 % of the images are already checked: those with the lowest keys."""
SCREENED_OUT_OF_16 = "0123"
"""A quarter of the others does not pass the made-up screen: by the last digit of the key."""


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a step takes, and the most memory until then."""
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 2)
    seconds[f"{name}_mb"] = round(peak_mb())


def urls(rows: int) -> Iterator[pl.DataFrame]:
    """Candidates as they come: a tenth repeats, 1 % is no URL, 5 % are signed, some are written oddly."""
    for first in range(0, rows, BATCH_ROWS):
        n = pl.int_range(first, min(rows, first + BATCH_ROWS), eager=True).alias("n").to_frame()
        m = pl.when(pl.col("n") % 10 == 7).then(pl.col("n") // 2).otherwise("n")
        plain = pl.format("https://img{}.example.com/portraits/{}/photo-{}.jpg", m % 50, m % 9973, m)
        signed = pl.format("{}?X-Amz-Date=20261101T000000Z&X-Amz-Signature={}", plain, n["n"].hash(0))
        url = (
            pl.when(pl.col("n") % 100 == 99).then(pl.lit("see attachment"))
            .when(pl.col("n") % 20 == 11).then(signed)
            .when(pl.col("n") % 50 == 17).then(plain + "#top")
            .otherwise(plain)
        )  # fmt: skip
        yield n.select(
            url.alias("image_url"),
            pl.format("a portrait, number {}", "n").alias("caption"),
            pl.lit("web").alias("source"),
        )


def make(rows: int, folder: Path) -> dict[str, float]:
    """The input, and a ledger that knows some of it. The writer's own row groups are what users have."""
    import pyarrow.parquet as pq

    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database.ledger import Ledger

    async def create() -> None:
        async with Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", SystemClock()):
            pass

    asyncio.run(create())
    checked = 0
    with (
        contextlib.closing(sqlite3.connect(folder / "ledger.sqlite3")) as ledger,
        ledger,
        contextlib.ExitStack() as stack,
    ):
        writer, path = None, folder / "candidates.parquet"
        for batch in urls(rows):
            table = batch.to_arrow()
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table, row_group_size=BATCH_ROWS // 2)
            keys = assign_keys(batch.lazy(), "image_url").select("image_key").drop_nulls().unique().collect()
            keys = keys.filter(pl.col("image_key") < f"{KNOWN_OF_256:02x}")["image_key"]
            checked += ledger.executemany(
                "INSERT OR IGNORE INTO verdicts (image_key, model, service, attempt_id, run_id, outcome,"
                " reason, check_pass, billing, checked_at)"
                " VALUES (?, ?, ?, 0, 'before', 'failed', 'no_human', 0, 'not_billed', 1)",
                [(key, MODEL, SERVICE) for key in keys],
            ).rowcount
    return {"checked": checked}


def ours(rows: int, folder: Path) -> dict[str, float]:
    """A real run without the image fetches and the paid calls."""
    from pydantic import SecretStr

    from s2v_tasks.domain.verdict_table import SCREENED_SCHEMA
    from s2v_tasks.runtime.lifecycle import open_run
    from s2v_tasks.runtime.plan import plan
    from s2v_tasks.runtime.verdict_file import write_verdict_files
    from s2v_tasks.settings import Advanced, Credentials, CurateParameters

    class Rate:
        rate_per_s, source = 5.0, "benchmark"

    seconds: dict[str, float] = {}

    async def run() -> None:
        parameters = CurateParameters(
            candidates=str(folder / "candidates.parquet"),
            out=str(folder / "out"),
            budget_usd=1.0,
            advanced=Advanced(ledger=f"sqlite:///{folder / 'ledger.sqlite3'}", shard_size=SHARD_SIZE),
        )
        opening = open_run(plan(parameters, Credentials(BASE_URL, SecretStr("none"))), "the-run", Rate())
        with timed(seconds, "read"):
            opened = await opening.__aenter__()
        try:
            with timed(seconds, "shards"):
                while (shard := await opened.queue.next()) is not None:
                    reason = pl.when(_screened_out()).then(pl.lit("too_small"))
                    results = shard.images.select("image_key", reason.alias("screen_reason"))
                    rest = [
                        pl.lit(None, dtype).alias(name) for name, dtype in list(SCREENED_SCHEMA.items())[2:]
                    ]
                    opened.partitions.add_screened(results.with_columns(rest))
            with timed(seconds, "join"):
                write_verdict_files(opened)
        finally:
            await opening.__aexit__(None, None, None)

    asyncio.run(run())
    _check(pl.scan_parquet(folder / "out" / "runs" / "the-run" / "verdicts.parquet"), rows)
    return seconds


def plainly(rows: int, folder: Path) -> dict[str, float]:
    """The same job as one would first write it with pandas."""
    import pandas as pd

    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        frame = pd.read_parquet(folder / "candidates.parquet")
        frame["row"] = range(len(frame))
        frame["reason"] = frame["image_url"].map(url_rejection_reason)
        good = frame["reason"].isna()
        frame.loc[good, "image_key"] = frame.loc[good, "image_url"].map(image_key)
        first = frame.groupby("image_key")["row"].transform("min")
        frame["duplicate_of"] = first.where(first < frame["row"])
    with timed(seconds, "shards"):
        with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite3")) as ledger, ledger:
            checked = pd.read_sql(
                "SELECT image_key, outcome, reason AS ledger_reason, check_pass, billing FROM verdicts"
                " WHERE model = ? AND service = ?",
                ledger,
                params=(MODEL, SERVICE),
            )
        fresh = frame[good & frame["duplicate_of"].isna()]
        fresh = fresh[~fresh["image_key"].isin(checked["image_key"])]
        screened = fresh[["image_key"]].copy()
        out = screened["image_key"].str[-1].isin(list(SCREENED_OUT_OF_16))
        screened["screen_reason"] = out.map({True: "too_small", False: None})
    with timed(seconds, "join"):
        joined = frame.merge(checked, on="image_key", how="left").merge(screened, on="image_key", how="left")
        joined["reason"] = joined["reason"].fillna(joined["screen_reason"]).fillna(joined["ledger_reason"])
        joined["outcome"] = joined["outcome"].fillna("skipped")
        refused = joined["screen_reason"].notna() | (joined["reason"].notna() & joined["image_key"].isna())
        joined.loc[refused, "outcome"] = "screened_out"
        joined.loc[joined["duplicate_of"].notna(), "outcome"] = "duplicate"
        joined = joined.drop(columns=["screen_reason", "ledger_reason"])
        joined.to_parquet(folder / "plain.parquet")
    _check(pl.scan_parquet(folder / "plain.parquet"), rows)
    return seconds


def with_polars(rows: int, folder: Path) -> dict[str, float]:
    """The same job as a plain polars program, with whole frames."""
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        frame = pl.read_parquet(folder / "candidates.parquet")
        keyed = assign_keys(frame.lazy(), "image_url").collect().drop("url")
        first = pl.col("row").min().over("image_key")
        repeats = pl.col("image_key").is_not_null() & (first < pl.col("row"))
        keyed = keyed.with_columns(pl.when(repeats).then(first).alias("duplicate_of"))
    with timed(seconds, "shards"):
        with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite3")) as ledger, ledger:
            checked = pl.DataFrame(
                ledger.execute(
                    "SELECT image_key, outcome, reason, check_pass, billing, checked_at FROM verdicts"
                    " WHERE model = ? AND service = ?",
                    (MODEL, SERVICE),
                ).fetchall(),
                schema=["image_key", "outcome", "ledger_reason", "check_pass", "billing", "checked_at"],
                orient="row",
            )
        fresh = keyed.filter(pl.col("reason").is_null() & pl.col("duplicate_of").is_null())
        fresh = fresh.select("image_key").join(checked, on="image_key", how="anti")
        screened = fresh.select(
            "image_key", pl.when(_screened_out()).then(pl.lit("too_small")).alias("screen_reason")
        )
    with timed(seconds, "join"):
        joined = keyed.join(checked, on="image_key", how="left", maintain_order="left").join(
            screened, on="image_key", how="left", maintain_order="left"
        )
        is_out = pl.col("screen_reason").is_not_null() | pl.col("reason").is_not_null()
        outcome = (
            pl.when(pl.col("duplicate_of").is_not_null()).then(pl.lit("duplicate"))
            .when(is_out).then(pl.lit("screened_out"))
            .otherwise(pl.col("outcome").fill_null("skipped"))
        )  # fmt: skip
        joined = joined.with_columns(
            outcome.alias("outcome"),
            pl.coalesce("reason", "screen_reason", "ledger_reason").alias("reason"),
            check_pass=pl.col("check_pass").cast(pl.Boolean),
            checked_at=pl.col("checked_at").cast(pl.Datetime("us", "UTC")),
        ).drop("screen_reason", "ledger_reason")
        rest = [
            pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in joined.columns
        ]
        whole = pl.concat([frame, joined.with_columns(rest).select(*SCHEMA)], how="horizontal")
        whole.write_parquet(folder / "polars.parquet")
    _check(pl.scan_parquet(folder / "polars.parquet"), rows)
    return seconds


def _screened_out() -> pl.Expr:
    return pl.col("image_key").str.slice(-1).is_in(list(SCREENED_OUT_OF_16))


def _check(verdicts: pl.LazyFrame, rows: int) -> None:
    counts = dict(verdicts.group_by("outcome").len().collect(engine="streaming").iter_rows())
    assert sum(counts.values()) == rows, counts  # noqa: S101  (a benchmark of a wrong result is none)
    print(json.dumps(counts), file=sys.stderr)


def peak_mb() -> float:
    """The most memory this process ever held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


JOBS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "make": make, "ours": ours, "polars": with_polars, "plain": plainly,
}  # fmt: skip

if __name__ == "__main__":
    began = time.perf_counter()
    figures = JOBS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
    total = round(time.perf_counter() - began, 2)
    cpu = os.times()
    print(json.dumps({**figures, "total": total, "cpu": cpu.user + cpu.system, "peak_mb": round(peak_mb())}))
