"""Curate, then start the downstream stage, only on an open gate, with the path of the published file."""

from inspect import isawaitable
from typing import Annotated, Any

from prefect import Flow, flow, get_client
from prefect.client.schemas.objects import State
from prefect.deployments import arun_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Failed
from s2v_tasks.flows.curate import curate, run_name

from s2v_tasks.errors import S2VError, UsageError
from s2v_tasks.runtime.curation import run_id_of
from s2v_tasks.runtime.finalize import CurationResult, failed_state
from s2v_tasks.settings import (
    Advanced,
    AdvancedSwitch,
    Budget,
    Candidates,
    MovedOutput,
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
from s2v_tasks.settings.fields import described


@flow(name="pipeline", persist_result=False, retries=0, flow_run_name=run_name)
async def pipeline(
    candidates: Candidates,
    out: Out,
    budget_usd: Budget,
    downstream: Annotated[
        str,
        described(
            "Downstream stage",
            'A deployment ("flow/deployment") or a flow ("module:flow", "file.py:flow").',
            min_length=1,
            examples=["train/nightly", "stages.py:train"],
        ),
    ],
    downstream_parameter: Annotated[
        str,
        described(
            "Parameter of that stage",
            "It takes the path of the published file.",
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        ),
    ] = "path",
    source: SourceGroup = Source(),
    thresholds: ThresholdsGroup = Thresholds(),
    screening: ScreeningGroup = Screening(),
    spending: SpendingGroup = Spending(),
    output: MovedOutput = Output(),
    advanced: AdvancedSwitch = None,
) -> State[Any]:
    """Curate, and start the downstream stage only if the gate opened.

    The parameters are those of `curate`, and ``downstream``: its state is this run's.
    """
    try:
        stage = await _stage(downstream)
    except UsageError as error:  # before anything is paid
        return await failed_state(error)
    state: State[CurationResult] = await curate(
        candidates,
        out,
        budget_usd,
        source=source,
        thresholds=thresholds,
        screening=screening,
        spending=spending,
        output=output,
        advanced=_as_one_run(advanced or Advanced()),
        return_state=True,
    )
    if not state.is_completed():
        result = await state.aresult(raise_on_failure=False)
        return await failed_state(result) if isinstance(result, S2VError) else state
    publication = (await state.aresult()).publication
    if publication is None:
        return Completed(message=f"{state.message}; the downstream stage is not started")
    return await _start(stage, {downstream_parameter: publication.path})


def _as_one_run(advanced: Advanced) -> Advanced:
    """The curation has this flow run's id, so that a retry of the whole enters it again."""
    return advanced.model_copy(update={"run_id": run_id_of(advanced)})


async def _stage(name: str) -> Flow[..., Any] | str:
    """The flow that ``name`` means, or the deployment's name after making sure that it is there.

    Raises:
        UsageError: There is no such flow or deployment.
    """
    try:
        if ":" in name:
            stage: Flow[..., Any] = load_flow_from_entrypoint(name)
            return stage
        async with get_client() as client:
            await client.read_deployment_by_name(name)
    except Exception as error:  # noqa: BLE001  (whatever importing a file, or asking the server, raises)
        raise UsageError(
            f"no stage {name!r} ({type(error).__name__}); name a flow/deployment, or a flow as module:flow"
        ) from None
    return name


async def _start(stage: Flow[..., Any] | str, parameters: dict[str, Any]) -> State[Any]:
    """Run a flow or a deployment to its end, and return its state."""
    if not isinstance(stage, str):
        result: Any = stage(**parameters, return_state=True)
        state: State[Any] = await result if isawaitable(result) else result
        return state
    run = await arun_deployment(stage, parameters=parameters)
    if run.state is None or not run.state.is_completed():
        return Failed(
            message=f"the downstream stage, {stage}, did not complete: {run.state and run.state.name}"
        )
    return Completed(message=f"published, and {stage} completed")
