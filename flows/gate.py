"""Judge a finished run again, with other thresholds: no call, no cost."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from s2v_tasks import gate as stage6
from s2v_tasks import tasks
from s2v_tasks.adapters.folder import UNFINISHED, RunFolder
from s2v_tasks.errors import GateClosed, S2VError, UsageError
from s2v_tasks.finish import failed
from s2v_tasks.settings import Thresholds


@flow(name="gate", persist_result=False)
async def gate(run_dir: str, thresholds: Thresholds | None = None, publish: bool = False) -> State[Any]:
    """Judge a finished run again; the first report stays, the new one is put beside it.

    Args:
        run_dir: The folder of a finished run, OUT/runs/<run_id>.
        thresholds: What the data set must keep; if empty, what the run itself was held against.
        publish: Also publish the run if the gate is open.
    """
    try:
        folder = RunFolder.of(Path(run_dir))
        manifest = folder.read()
        if manifest.status in UNFINISHED:
            raise UsageError(
                f"run {manifest.run_id} is not finished; finish it with the command that began it"
            )
        parameters = manifest.parameters
        report = await tasks.gate(
            folder.path, thresholds or parameters.thresholds, parameters.source.segment_column, again=True
        )
        if not report.open:
            return failed(GateClosed(stage6.words(report)))
        message = stage6.words(report)
        if publish:
            publication = await tasks.publish(folder.path, report)
            message += " Published." if publication else " Not published: a run that started later is."
        return Completed(message=message, data=report)
    except S2VError as error:
        return failed(error)
