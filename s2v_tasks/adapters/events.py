"""What other systems may want to hear of a run: Prefect events, all with one payload, and an asset.

Triggers match them by name and by resource: ``s2v.run.<run_id>``, with the output folder as the label
``s2v.out``. Flow, deployment and tags stand under ``related``, as Prefect adds them. An event may come twice
(a run that died behind its publication publishes again), and is lost if the server stays away to the run's
end: the pointer in OUT is what holds.
"""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from prefect.assets import Asset
from prefect.events import emit_event
from pydantic import ValidationError

Name = Literal[
    "s2v.run.started", "s2v.gate.closed", "s2v.dataset.published", "s2v.budget.spent", "s2v.account.refused"
]
MATERIALIZED: Final = "prefect.asset.materialization.succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What every event carries; what is not known yet is None. Rows and USD; no secret, no image URL.

    ``rows`` are the approved ones, of ``candidates`` rows in all; ``path`` is the approved file, only of a
    publication; ``cost_usd`` is this run's, ``data_set_cost_usd`` all that its pictures ever cost.
    """

    run_id: str
    out: str
    run_dir: str
    message: str
    candidates: int
    rows: int | None = None
    path: str | None = None
    pass_rate: float | None = None
    cost_usd: float | None = None
    data_set_cost_usd: float | None = None


def tell(name: Name, payload: Payload) -> None:
    """Send one event; Prefect queues it, so a server that is away does not hold the run."""
    resource = {
        "prefect.resource.id": f"s2v.run.{payload.run_id}",
        "prefect.resource.name": Path(payload.out).name,
        "s2v.out": payload.out,
    }
    emit_event(name, resource, payload=asdict(payload))
    if name == "s2v.dataset.published":
        _tell_asset(payload)


def _tell_asset(payload: Payload) -> None:
    """The data set as a Prefect asset; the key is its folder, so each publication is a new version of it.

    Not by ``@materialize``, which names the asset before it is known whether anything will be published.
    """
    place = payload.out if "://" in payload.out else Path(payload.out).as_uri()
    with contextlib.suppress(ValidationError):  # a folder whose name Prefect takes for no key
        asset = Asset(key=f"{place}/published")
        resource = {"prefect.resource.id": asset.key, "prefect.resource.name": Path(payload.out).name}
        emit_event(MATERIALIZED, resource, payload=asdict(payload))
