"""The whole path: candidates -> screen -> detect -> verdicts -> gate -> publish."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from s2v_tasks import tasks
from s2v_tasks.adapters.allowance import Allowance
from s2v_tasks.adapters.artifacts import reporting
from s2v_tasks.blocks import stored_access
from s2v_tasks.errors import S2VError
from s2v_tasks.finish import ended, failed
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.plan import plan
from s2v_tasks.runs import open_run
from s2v_tasks.settings import CurateParameters, Output, Screening, Source, Spending, Thresholds
from s2v_tasks.shards import through


@flow(persist_result=False)
async def curate(
    candidates: str,
    out: str,
    budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)],
    source: Source = Source(),
    screening: Screening = Screening(),
    thresholds: Thresholds = Thresholds(),
    spending: Spending = Spending(),
    output: Output = Output(),
    run_id: str | None = None,
) -> State[Any]:
    """Curate candidate pictures into a gated, published data set.

    Args:
        candidates: Parquet, CSV or NDJSON with a column of image URLs; a path or a glob.
        out: Folder for everything that is written.
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
        access = await stored_access(spending.credentials)
        async with (
            Allowance(WAN22_S2V_DETECT) as allowance,
            open_run(plan(parameters, access), run_id or str(flow_run.id), allowance) as run,
            reporting(run),
        ):
            await through(run, tasks.screen if screening.enabled else None, tasks.detect)
            run.check_lease()
            await tasks.verdicts()
            if run.stopped:
                return await ended(run)
            report = await tasks.gate(run.folder.path, thresholds, source.segment_column)
            run.check_lease()
            publication = await tasks.publish(run.folder.path, report)
            return await ended(run, report, publication)
    except S2VError as error:
        return failed(error)
