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

from s2v_tasks.candidates import image_key, placed, refusal

MODEL, SERVICE, BASE_URL = "wan2.2-s2v-detect", "http://127.0.0.1:9", "http://127.0.0.1:9/api/v1"
BATCH_ROWS = 250_000
SHARD_SIZE = 1_000
KNOWN_OF_256 = 13
"""About 5 % of the pictures are known to the ledger: those whose key begins low."""
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
    """Candidates as they come: a tenth repeats, 1 % is no address, 5 % are signed, some are spelt oddly."""
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
    from s2v_tasks.adapters.database import LedgerDatabase

    async def create() -> None:
        async with LedgerDatabase(f"sqlite:///{folder / 'ledger.sqlite3'}", SystemClock()):
            pass

    asyncio.run(create())
    known = 0
    with sqlite3.connect(folder / "ledger.sqlite3") as ledger, contextlib.ExitStack() as stack:
        writer, path = None, folder / "candidates.parquet"
        for batch in urls(rows):
            table = batch.to_arrow()
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table, row_group_size=BATCH_ROWS // 2)
            keys = placed(batch.lazy(), "image_url").select("image_key").drop_nulls().unique().collect()
            keys = keys.filter(pl.col("image_key") < f"{KNOWN_OF_256:02x}")["image_key"]
            known += ledger.executemany(
                "INSERT OR IGNORE INTO verdicts (image_key, model, service, attempt_id, run_id, outcome,"
                " reason, check_pass, billing, judged_at)"
                " VALUES (?, ?, ?, 0, 'before', 'failed', 'no_human', 0, 'not_billed', 1)",
                [(key, MODEL, SERVICE) for key in keys],
            ).rowcount
    return {"known": known}


def ours(rows: int, folder: Path) -> dict[str, float]:
    """A run as it is, but for the look at the pictures and the paid call."""
    from pydantic import SecretStr

    from s2v_tasks.adapters.dashscope import Access
    from s2v_tasks.plan import plan
    from s2v_tasks.runs import open_run
    from s2v_tasks.settings import CurateParameters, Output, Spending
    from s2v_tasks.verdicts import SCREENED_SCHEMA

    class Rate:
        rate_per_s, source = 5.0, "nobody"

    seconds: dict[str, float] = {}

    async def run() -> None:
        parameters = CurateParameters(
            candidates=str(folder / "candidates.parquet"),
            out=str(folder / "out"),
            budget_usd=1.0,
            spending=Spending(ledger=f"sqlite:///{folder / 'ledger.sqlite3'}"),
            output=Output(shard_size=SHARD_SIZE),
        )
        opening = open_run(plan(parameters, Access(BASE_URL, SecretStr("none"))), "the-run", Rate())
        with timed(seconds, "read"):
            opened = await opening.__aenter__()
        try:
            with timed(seconds, "shards"):
                async for shard in opened.shards():
                    reason = pl.when(_screened_out()).then(pl.lit("too_small"))
                    told = shard.pictures.select("image_key", reason.alias("screen_reason"))
                    rest = [
                        pl.lit(None, dtype).alias(name) for name, dtype in list(SCREENED_SCHEMA.items())[2:]
                    ]
                    await opened.keep_screened(told.with_columns(rest))
            with timed(seconds, "join"):
                opened.collect()
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
        frame["reason"] = frame["image_url"].map(refusal)
        good = frame["reason"].isna()
        frame.loc[good, "image_key"] = frame.loc[good, "image_url"].map(image_key)
        first = frame.groupby("image_key")["row"].transform("min")
        frame["duplicate_of"] = first.where(first < frame["row"])
    with timed(seconds, "shards"):
        with sqlite3.connect(folder / "ledger.sqlite3") as ledger:
            known = pd.read_sql(
                "SELECT image_key, outcome, reason AS judged, check_pass, billing FROM verdicts"
                " WHERE model = ? AND service = ?",
                ledger,
                params=(MODEL, SERVICE),
            )
        fresh = frame[good & frame["duplicate_of"].isna()]
        fresh = fresh[~fresh["image_key"].isin(known["image_key"])]
        screened = fresh[["image_key"]].copy()
        out = screened["image_key"].str[-1].isin(list(SCREENED_OUT_OF_16))
        screened["screen_reason"] = out.map({True: "too_small", False: None})
    with timed(seconds, "join"):
        joined = frame.merge(known, on="image_key", how="left").merge(screened, on="image_key", how="left")
        joined["reason"] = joined["reason"].fillna(joined["screen_reason"]).fillna(joined["judged"])
        joined["outcome"] = joined["outcome"].fillna("unspent")
        refused = joined["screen_reason"].notna() | (joined["reason"].notna() & joined["image_key"].isna())
        joined.loc[refused, "outcome"] = "screened_out"
        joined.loc[joined["duplicate_of"].notna(), "outcome"] = "duplicate"
        joined = joined.drop(columns=["screen_reason", "judged"])
        joined.to_parquet(folder / "plain.parquet")
    _check(pl.scan_parquet(folder / "plain.parquet"), rows)
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
    if status.exists():  # getrusage would tell of the parent too
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


JOBS: dict[str, Callable[[int, Path], dict[str, float]]] = {"make": make, "ours": ours, "plain": plainly}

if __name__ == "__main__":
    began = time.perf_counter()
    figures = JOBS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
    total = round(time.perf_counter() - began, 2)
    cpu = os.times()
    print(json.dumps({**figures, "total": total, "cpu": cpu.user + cpu.system, "peak_mb": round(peak_mb())}))
