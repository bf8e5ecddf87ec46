"""Judge a finished run again, with other thresholds: no call, no cost."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from s2v_tasks import gate as stage6
from s2v_tasks import tasks
from s2v_tasks.adapters import events, storage
from s2v_tasks.adapters.folder import UNFINISHED, Manifest, RunFolder
from s2v_tasks.errors import GateClosed, S2VError, UsageError
from s2v_tasks.finish import failed
from s2v_tasks.models import GateReport
from s2v_tasks.publish import Publication
from s2v_tasks.settings import Thresholds, titled


@flow(name="gate", persist_result=False, flow_run_name="{run_dir}")
async def gate(
    run_dir: Annotated[
        str, titled("Run folder", min_length=1, examples=["/data/curated/runs/20261001T020000Z-a1b2c3"])
    ],
    thresholds: Annotated[Thresholds | None, titled("Thresholds", examples=[{"min_pass_rate": 0.4}])] = None,
    publish: Annotated[bool, titled("Publish")] = False,
) -> State[Any]:
    """Judge a finished run again; the first report stays, the new one is put beside it.

    Args:
        run_dir: The folder of a finished run, OUT/runs/<run_id>.
        thresholds: What the data set must keep; if empty, what the run itself was held against.
        publish: Also publish the run if the gate is open.
    """
    try:
        folder = RunFolder.of(storage.place(run_dir))
        manifest = folder.read()
        if manifest.status in UNFINISHED:
            raise UsageError(
                f"run {manifest.run_id} is not finished; finish it with the command that began it"
            )
        parameters = manifest.parameters
        report = await tasks.gate(
            folder.path, thresholds or parameters.thresholds, parameters.source.segment_column, again=True
        )
        message = stage6.words(report)
        if not report.open:
            events.tell("s2v.gate.closed", _payload(folder, manifest, report))
            return failed(GateClosed(message))
        if publish:
            publication = await tasks.publish(folder.path, report)
            if publication:
                events.tell("s2v.dataset.published", _payload(folder, manifest, report, publication))
            message += " Published." if publication else " Not published: a run that started later is."
        return Completed(message=message, data=report)
    except S2VError as error:
        return failed(error)


def _payload(
    folder: RunFolder, manifest: Manifest, report: GateReport, publication: Publication | None = None
) -> events.Payload:
    facts = report.facts[0]
    return events.Payload(
        run_id=folder.run_id,
        out=str(folder.out),
        run_dir=str(folder.path),
        message=stage6.words(report),
        candidates=manifest.rows,
        rows=facts.passed if publication is None else publication.rows,
        path=None if publication is None else publication.path,
        pass_rate=facts.pass_rate,
        cost_usd=facts.cost_usd,
        data_set_cost_usd=facts.data_set_cost_usd,
    )
