"""Run folders as this version of the program writes them, made of a few rows without a run."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder, open_run_folder
from s2v_tasks.domain.publish_rules import GateSummary, Publication
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.models import FORMAT
from s2v_tasks.settings import CurateParameters, Source

PRICE_USD = 0.000574
STARTED_AT = datetime(2026, 10, 1, 2, tzinfo=UTC)
_PLAIN = {
    "attempts": 0,
    "from_ledger": False,
    "run_cost_usd": 0.0,
    "lifetime_cost_usd": 0.0,
    "billing": "none",
}


def row(host: str, source: str | None, outcome: str, calls: int = 0, **more: Any) -> dict[str, Any]:
    """A row of a host and a segment; each call costs the full price."""
    usd = calls * PRICE_USD
    cost = {"attempts": calls, "run_cost_usd": usd, "lifetime_cost_usd": usd}
    return {"image_url": f"https://{host}/1.jpg", "source": source, "outcome": outcome} | cost | more


def verdicts(*rows: dict[str, Any]) -> pl.DataFrame:
    """Verdicts of these rows; what they leave out is null, or zero."""
    own = {"image_url": str, "source": str}
    own |= {name: type(value) for one in rows for name, value in one.items() if value is not None}
    names = {name: pl.DataType.from_python(kind) for name, kind in own.items() if name not in SCHEMA}
    return pl.DataFrame([_PLAIN | {"row": n} | one for n, one in enumerate(rows)], schema={**names, **SCHEMA})


def made(
    out: Path | str,
    run_id: str,
    frame: pl.DataFrame,
    number: int = 1,
    *,
    published: bool = True,
    facts: Sequence[dict[str, Any]] = (),
    **source: Any,
) -> str:
    """Write the folder of a finished run below ``out``, a path or a store; gives its path."""
    folder = RunFolder(file_io.parse_path(out), run_id)
    started_at = STARTED_AT + timedelta(days=number)
    publication = Publication(
        format=FORMAT,
        number=number,
        run_id=run_id,
        started_at=started_at.isoformat(),
        path=str(folder.approved),
        rows=frame.filter(outcome="passed").height,
        sha256="0" * 64,
        run_cost_usd=0.0,
        dataset_cost_usd=0.0,
        gate=GateSummary(checked_at=started_at.isoformat(), expectations=55, pass_rate=None),
    )
    manifest = Manifest(
        format=FORMAT, run_id=run_id, status="published" if published else "closed", number=number,
        started_at=started_at, service="http://127.0.0.1:9", ledger="sqlite:///ledger", identity="0",
        parameters=CurateParameters(
            candidates="portraits.parquet", out=str(out), budget_usd=1.0, source=Source(**source)
        ),
        rows=frame.height, publication=publication if published else None,
    )  # fmt: skip
    file_io.sink(frame.lazy(), folder.verdicts)
    file_io.sink(frame.lazy().filter(outcome="passed"), folder.approved)
    file_io.write_json(folder.gate, {"open": published, "checked_at": started_at.isoformat(), "facts": facts})
    folder.write(manifest)
    if published:
        pointer.move(folder.out, publication)
    return str(open_run_folder(folder.path).path)
