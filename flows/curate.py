"""The whole path: candidates -> screen -> detect -> verdicts -> gate -> publish."""

from pathlib import PurePath
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from s2v_tasks import tasks
from s2v_tasks.adapters.storage.file_io import parse_path
from s2v_tasks.errors import RunFinished, S2VError, Withdrawn
from s2v_tasks.runtime.curation import run_id_of
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.finalize import failed_state, finalize_run
from s2v_tasks.runtime.recorded_end import recorded_end
from s2v_tasks.settings import (
    AdvancedSwitch,
    Budget,
    Candidates,
    CurateParameters,
    MovedOutput,
    MovedRunId,
    Out,
    Output,
    Screening,
    ScreeningGroup,
    Source,
    SourceGroup,
    Spending,
    SpendingGroup,
    Thresholds,
    ThresholdsGroup,
)


def run_name() -> str:
    """The dataset and its budget, such as ``portraits.parquet to curated, up to USD 5``."""
    given = flow_run.parameters
    candidates, out = (PurePath(given[name].partition("?")[0]).name for name in ("candidates", "out"))
    return f"{candidates} to {out}, up to USD {given['budget_usd']:g}"


@flow(persist_result=False, retries=0, flow_run_name=run_name)
async def curate(
    candidates: Candidates,
    out: Out,
    budget_usd: Budget,
    source: SourceGroup = Source(),
    thresholds: ThresholdsGroup = Thresholds(),
    screening: ScreeningGroup = Screening(),
    spending: SpendingGroup = Spending(),
    output: MovedOutput = Output(),
    run_id: MovedRunId = None,
    advanced: AdvancedSwitch = None,
) -> State[Any]:
    """Curate candidate images into a gated, published dataset.

    The parameters are those of `s2v_tasks.CurateParameters`, where each is described; what was in ``output``,
    and ``run_id``, is in ``advanced`` now.
    """
    given = {
        "candidates": candidates,
        "out": out,
        "budget_usd": budget_usd,
        "source": source,
        "thresholds": thresholds,
        "screening": screening,
        "spending": spending,
        "output": output,
        "advanced": advanced,
        "run_id": run_id,
    }
    parameters = CurateParameters.model_validate(given)
    try:
        async with tasks.open_curation(parameters) as run:
            await process_shards(run, tasks.screen if screening.enabled else None, tasks.detect)
            run.check_lease()
            await tasks.verdicts()
            if run.stopped:
                return await finalize_run(run)
            report = await tasks.gate(
                run.folder.path, thresholds, source.segment_column, data_docs=parameters.advanced.data_docs
            )
            run.check_lease()
            try:
                publication = await tasks.publish(run.folder.path, report) if report.open else None
            except Withdrawn as error:
                return await finalize_run(run, report, refused=error)
            return await finalize_run(run, report, publication)
    except RunFinished:
        return await recorded_end(parse_path(out), run_id_of(parameters.advanced))
    except S2VError as error:
        return await failed_state(error)
