"""One task alone: `screen` looks at any list of pictures; `gate` and `publish` take a run's folder."""

import polars as pl
from prefect import flow

from s2v_tasks import Publication, Screening, Thresholds
from s2v_tasks.adapters.folder import RunFolder
from s2v_tasks.adapters.storage import place
from s2v_tasks.candidates import fresh, identify
from s2v_tasks.tasks import gate, publish, screen


@flow
async def worth_a_look(file: str, screening: Screening = Screening()) -> pl.DataFrame:
    """Which pictures of a parquet file are there, and of which format and size. No key, no cost."""
    rows = pl.scan_parquet(file)
    pictures = fresh(identify(rows, "image_url")).collect()
    return pictures.join(await screen(pictures, screening), on="image_key", maintain_order="left")


@flow
async def publish_if_good(run_dir: str, min_pass_rate: float) -> Publication | None:
    """Judge a finished run again, by another pass rate and else as before; no call. Publish if it is open."""
    asked = RunFolder.of(place(run_dir)).read().parameters
    thresholds = Thresholds(**{**asked.thresholds.model_dump(), "min_pass_rate": min_pass_rate})
    report = await gate(run_dir, thresholds, asked.source.segment_column, again=True)
    return await publish(run_dir, report)
