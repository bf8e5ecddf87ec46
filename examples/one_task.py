"""One task alone: `screen` checks any list of images for free; `gate` and `publish` take a run's folder."""

import polars as pl
from prefect import flow

from s2v_tasks import (
    Publication,
    Screening,
    Thresholds,
    add_image_keys,
    open_run_folder,
    unique_images,
)
from s2v_tasks.tasks import gate, publish, screen


@flow
async def worth_screening(file: str, screening: Screening = Screening()) -> pl.DataFrame:
    """Which images of a parquet file are there, and of which format and size. No key, no cost."""
    rows = pl.scan_parquet(file)
    images = unique_images(add_image_keys(rows, "image_url")).collect()
    return images.join(await screen(images, screening), on="image_key", maintain_order="left")


@flow
async def publish_if_good(run_dir: str, min_pass_rate: float) -> Publication | None:
    """Evaluate a finished run's gate with another pass rate, without any call; publish if it is open."""
    parameters = open_run_folder(run_dir).read().parameters
    thresholds = Thresholds(**{**parameters.thresholds.model_dump(), "min_pass_rate": min_pass_rate})
    report = await gate(run_dir, thresholds, parameters.source.segment_column, again=True)
    return await publish(run_dir, report)
