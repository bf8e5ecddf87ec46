"""Evaluate the gate of a finished run again, with other thresholds: no call, no cost."""

import asyncio
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from s2v_tasks import tasks
from s2v_tasks.adapters.prefect import events
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder, check_finished, open_run_folder
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.errors import GateClosed, S2VError
from s2v_tasks.models import GateReport
from s2v_tasks.runtime.finalize import failed_state
from s2v_tasks.runtime.run_report import write_report
from s2v_tasks.settings import Thresholds
from s2v_tasks.settings.fields import Share, described
from s2v_tasks.settings.moved import deprecation


@flow(name="gate", persist_result=False, retries=0, flow_run_name="{run_dir}")
async def gate(
    run_dir: Annotated[
        str,
        described(
            "Run folder",
            "The folder of a finished run, OUT/runs/<run_id>.",
            min_length=1,
            examples=["/data/curated/runs/20261001T020000Z-a1b2c3"],
        ),
    ],
    thresholds: Annotated[
        Thresholds | None,
        described(
            "Gate",
            "What the dataset must keep; if empty, the run's own thresholds.",
            examples=[{"min_pass_rate": 0.4}],
        ),
    ] = None,
    publish: Annotated[bool, described("Publish", "Also publish the run if the gate is open.")] = False,
    again: Annotated[bool, described("Again", "Publish the run although a rollback withdrew it.")] = False,
    data_docs: Annotated[
        bool, described("Data Docs", "Also write Great Expectations' pages, data_docs-<utc>/.")
    ] = False,
    max_error_share: Annotated[
        Share | None,
        described("Highest share of errors", "error / attempted; if empty, the run's own.", examples=[0.2]),
    ] = None,
    max_unknown_share: Annotated[
        Share | None,
        described(
            "Highest share of lost responses", "unknown / attempted; if empty, the run's own.", examples=[0.1]
        ),
    ] = None,
) -> State[Any]:
    """Evaluate the gate of a finished run again; the first report stays, the new one is put beside it.

    Args:
        run_dir: The folder of a finished run, OUT/runs/<run_id>.
        thresholds: What the dataset must keep; None: the run's own thresholds.
        publish: Also publish the run if the gate is open.
        again: Publish the run although a rollback withdrew it.
        data_docs: Also write Great Expectations' pages, data_docs-<utc>/, beside the report.
        max_error_share: error / attempted, 0 to 1; None: the run's own.
        max_unknown_share: unknown / attempted, 0 to 1; None: the run's own.
    """
    try:
        folder = open_run_folder(run_dir)
        manifest = folder.read()
        check_finished(manifest)
        await asyncio.to_thread(folder.verify, manifest)
        parameters = manifest.parameters
        if thresholds is not None and thresholds.moved:
            get_run_logger().warning(deprecation(thresholds.moved))
        report = await tasks.gate(
            folder.path,
            thresholds or parameters.thresholds,
            parameters.source.segment_column,
            max_error_share=max_error_share,
            max_unknown_share=max_unknown_share,
            again=True,
            data_docs=data_docs,
        )
        try:
            publication = await tasks.publish(folder.path, report, again=again) if publish else None
        finally:  # also of a run that must not be published: its gate was evaluated
            await _write_report(folder)
        message = gate_rules.message(report)
        if not report.open:
            events.emit("s2v.gate.closed", _payload(folder, manifest, report))
            return await failed_state(GateClosed(message))
        if publish:
            if publication:
                events.emit("s2v.dataset.published", _payload(folder, manifest, report, publication))
            message += " Published." if publication else " Not published: a run that started later is."
        return Completed(message=message, data=report)
    except S2VError as error:
        return await failed_state(error)


async def _write_report(folder: RunFolder) -> None:
    """Write the run's page again; the gate's result stands without it."""
    try:
        await asyncio.to_thread(write_report, folder.path)
    except Exception as error:  # noqa: BLE001  (whatever it is: the gate was evaluated)
        reason = error.message if isinstance(error, S2VError) else type(error).__name__
        get_run_logger().warning("report.html was not written (%s); the gate's result stands", reason)


def _payload(
    folder: RunFolder, manifest: Manifest, report: GateReport, publication: Publication | None = None
) -> events.Payload:
    facts = report.facts[0]
    return events.Payload(
        run_id=folder.run_id,
        out=str(folder.out),
        run_dir=str(folder.path),
        message=gate_rules.message(report),
        candidates=manifest.rows,
        rows=facts.passed if publication is None else publication.rows,
        path=None if publication is None else publication.path,
        pass_rate=facts.pass_rate,
        run_cost_usd=facts.run_cost_usd,
        dataset_cost_usd=facts.dataset_cost_usd,
    )
