"""Single tasks in your own flow, with a stage of your own among them: frames in, frames out."""

from typing import Any

import polars as pl
from prefect import flow, task
from prefect.client.schemas.objects import State

from s2v_tasks import CurateParameters, finalize_run, open_curation, process_shards
from s2v_tasks.tasks import detect, gate, publish, screen, verdicts


@task
async def screen_for_close_ups(images: pl.DataFrame) -> pl.DataFrame:
    """The free screen, and nothing below 600 pixels: what it rejects is never paid for."""
    screened = await screen(images)
    small = pl.col("screen_reason").is_null() & (pl.min_horizontal("width_px", "height_px") < 600)
    return screened.with_columns(
        screen_reason=pl.when(small).then(pl.lit("too_small")).otherwise("screen_reason")
    )


@flow
async def close_ups(parameters: CurateParameters) -> State[Any]:
    """What `curate` does, with another screen."""
    async with open_curation(parameters) as run:
        await process_shards(run, screen_for_close_ups, detect)
        run.check_lease()
        await verdicts()
        if run.stopped:  # an outage, a refused key, a signal: the same run continues it
            return await finalize_run(run)
        report = await gate(run.folder.path, parameters.thresholds, parameters.source.segment_column)
        run.check_lease()
        publication = await publish(run.folder.path, report)
        return await finalize_run(run, report, publication)
