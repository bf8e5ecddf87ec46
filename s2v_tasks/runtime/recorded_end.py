"""The end of a finished run, as its folder records it: for a run that is entered again."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from s2v_tasks.adapters.storage import history, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.errors import BudgetExhausted, GateClosed, Withdrawn
from s2v_tasks.runtime.finalize import CurationResult, failed_state
from s2v_tasks.runtime.verdict_file import summary_of


async def recorded_end(out: StoragePath, run_id: str) -> State[Any]:
    """The state that a finished run ended with: the same message and result, and nothing is done again.

    A retry, the Retry button of the Prefect UI and ``--run-id`` enter a run that has ended.
    """
    folder = RunFolder(out, run_id)
    manifest = folder.read()
    message = manifest.message or ""
    if manifest.status == "closed":
        return await failed_state(GateClosed(message))
    if manifest.status == "budget_exhausted":
        return await failed_state(BudgetExhausted(message))
    if manifest.publication is not None or manifest.status == "superseded":
        try:
            history.check_not_withdrawn(out, run_id, pointer.read(out))
        except Withdrawn as error:
            return await failed_state(error)
    source = manifest.parameters.source
    summary = summary_of(folder.verdicts, source.url_column, source.segment_column)
    publication = _publication(folder, manifest)
    result = CurationResult(run_id, folder.path, manifest.status, summary, publication, message)
    return Completed(message=message, data=result)


def _publication(folder: RunFolder, manifest: Manifest) -> Publication | None:
    """What the run published; a manifest of before that field leaves it to the pointer."""
    if manifest.publication is not None:
        return manifest.publication
    published = pointer.read(folder.out)
    return published if published is not None and published.run_id == folder.run_id else None
