"""Curate, then start the stage behind it, only on an open gate, with the path of the published file."""

from inspect import isawaitable
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.deployments import arun_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Failed
from pydantic import Field
from s2v_tasks.flows.curate import curate

from s2v_tasks.errors import UsageError
from s2v_tasks.finish import Curated, failed
from s2v_tasks.settings import Output, Screening, Source, Spending, Thresholds


@flow(name="pipeline", persist_result=False)
async def pipeline(
    candidates: str,
    out: str,
    budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)],
    downstream: str,
    downstream_parameter: str = "path",
    source: Source = Source(),
    screening: Screening = Screening(),
    thresholds: Thresholds = Thresholds(),
    spending: Spending = Spending(),
    output: Output = Output(),
) -> State[Any]:
    """Curate, and start the downstream stage only if the gate opened.

    Args:
        candidates: Parquet, CSV or NDJSON with a column of image URLs; a path or a glob.
        out: Folder for everything that is written.
        budget_usd: What this run may spend at most, in USD.
        downstream: The stage: a deployment ("flow/deployment") or a flow ("module:flow", "file.py:flow").
        downstream_parameter: The parameter of that stage which takes the path of the published file.
        source: Which rows make the data set.
        screening: The free look before the paid call.
        thresholds: What the data set must keep to be published.
        spending: Whose money and whose pace.
        output: What is written, and how the work is cut.
    """
    state: State[Curated] = await curate(
        candidates, out, budget_usd, source, screening, thresholds, spending, output, return_state=True
    )
    if not state.is_completed():
        return state
    publication = (await state.aresult()).publication
    if publication is None:
        return Completed(message=f"{state.message}; the stage behind is not started")
    return await _start(downstream, {downstream_parameter: publication.path})


async def _start(stage: str, parameters: dict[str, Any]) -> State[Any]:
    """Run a flow or a deployment to its end, and return its state."""
    if ":" in stage:
        behind: Any = load_flow_from_entrypoint(stage)
        came = behind(**parameters, return_state=True)
        state: State[Any] = await came if isawaitable(came) else came
        return state
    if stage.count("/") != 1:
        return failed(UsageError(f"no such stage: {stage}; name a flow/deployment, or a flow as module:flow"))
    run = await arun_deployment(stage, parameters=parameters)
    if run.state is None or not run.state.is_completed():
        return Failed(message=f"the stage behind, {stage}, did not complete: {run.state and run.state.name}")
    return Completed(message=f"published, and {stage} completed")
