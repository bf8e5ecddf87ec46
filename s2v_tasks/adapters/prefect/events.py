"""Prefect events of a run for other systems, all with one payload, and the asset of a publication.

Triggers match events by name and by resource: ``s2v.run.<run_id>``, with the output folder as the label
``s2v.out``. Prefect adds flow, deployment and tags under ``related``. An event may be emitted twice (a run
that died after its publication publishes again). It is lost if the server stays unreachable to the run's end:
the pointer in OUT is authoritative.
"""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from prefect.assets import Asset
from prefect.events import emit_event
from pydantic import ValidationError

Name = Literal[
    "s2v.run.started",
    "s2v.gate.closed",
    "s2v.dataset.published",
    "s2v.dataset.rolled_back",
    "s2v.budget.exhausted",
    "s2v.account.refused",
]
MATERIALIZED: Final = "prefect.asset.materialization.succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The payload of every event; unknown values are None. Rows and USD; no secret, no image URL.

    ``rows``: approved rows, of ``candidates`` rows in all. ``path``: the approved file, only of a
    publication or a rollback. ``run_cost_usd``: cost of this run; ``dataset_cost_usd``: cost of its images
    over all runs. ``candidates``: None of a rollback.
    """

    run_id: str
    out: str
    run_dir: str
    message: str
    candidates: int | None = None
    rows: int | None = None
    path: str | None = None
    pass_rate: float | None = None
    run_cost_usd: float | None = None
    dataset_cost_usd: float | None = None


def emit(name: Name, payload: Payload) -> None:
    """Emit one event. Prefect queues it, so an unreachable server does not delay the run."""
    resource = {
        "prefect.resource.id": f"s2v.run.{payload.run_id}",
        "prefect.resource.name": Path(payload.out).name,
        "s2v.out": payload.out,
    }
    emit_event(name, resource, payload=asdict(payload))
    if name == "s2v.dataset.published":
        _emit_asset(payload)


def _emit_asset(payload: Payload) -> None:
    """Emit the dataset as a Prefect asset; its key is the folder, so each publication is a new version.

    ``@materialize`` does not fit: it names the asset before the gate decides on the publication.
    """
    root = payload.out if "://" in payload.out else Path(payload.out).as_uri()
    with contextlib.suppress(ValidationError):  # Prefect accepts not every folder name as a key
        asset = Asset(key=f"{root}/published")
        resource = {"prefect.resource.id": asset.key, "prefect.resource.name": Path(payload.out).name}
        emit_event(MATERIALIZED, resource, payload=asdict(payload))
