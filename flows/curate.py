"""The whole path: candidates -> screen -> detect -> verdicts -> gate -> publish."""

from pathlib import PurePath
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from s2v_tasks import tasks
from s2v_tasks.curation import open_curation
from s2v_tasks.errors import S2VError
from s2v_tasks.finish import ended, failed
from s2v_tasks.settings import (
    RUN_ID,
    Budget,
    Candidates,
    CurateParameters,
    Out,
    Output,
    Screening,
    Source,
    Spending,
    Thresholds,
    titled,
)
from s2v_tasks.shards import through


def run_name() -> str:
    """The data set and its budget, such as ``portraits.parquet to curated, up to USD 5``."""
    given = flow_run.parameters
    candidates, out = (PurePath(given[name].partition("?")[0]).name for name in ("candidates", "out"))
    return f"{candidates} to {out}, up to USD {given['budget_usd']:g}"


@flow(persist_result=False, flow_run_name=run_name)
async def curate(
    candidates: Candidates,
    out: Out,
    budget_usd: Budget,
    source: Annotated[Source, titled("Rows")] = Source(),
    screening: Annotated[Screening, titled("Screening")] = Screening(),
    thresholds: Annotated[Thresholds, titled("Thresholds")] = Thresholds(),
    spending: Annotated[Spending, titled("Spending")] = Spending(),
    output: Annotated[Output, titled("Output")] = Output(),
    run_id: Annotated[
        Annotated[str, Field(pattern=f"^{RUN_ID}$")] | None,
        titled("Run to continue", examples=["20261001T020000Z-a1b2c3"]),
    ] = None,
) -> State[Any]:
    """Curate candidate pictures into a gated, published data set.

    Args:
        candidates: Parquet, CSV or NDJSON: a path, folder, glob, s3://... or hf://...; or sql:SELECT ...
        out: Folder for everything that is written; a path or s3://...
        budget_usd: What this run may spend at most, in USD; a picture costs 0.000574.
        source: Which rows make the data set.
        screening: The free look before the paid call.
        thresholds: What the data set must keep to be published.
        spending: Whose money and whose pace.
        output: What is written, and how the work is cut.
        run_id: The run to continue; if empty, the flow run's own id, so that a retry is the same run.
    """
    parameters = CurateParameters(
        candidates=candidates,
        out=out,
        budget_usd=budget_usd,
        source=source,
        screening=screening,
        thresholds=thresholds,
        spending=spending,
        output=output,
    )
    try:
        async with open_curation(parameters, run_id) as run:
            await through(run, tasks.screen if screening.enabled else None, tasks.detect)
            run.check_lease()
            await tasks.verdicts()
            if run.stopped:
                return await ended(run)
            report = await tasks.gate(run.folder.path, thresholds, source.segment_column)
            run.check_lease()
            publication = await tasks.publish(run.folder.path, report) if report.open else None
            return await ended(run, report, publication)
    except S2VError as error:
        return failed(error)
