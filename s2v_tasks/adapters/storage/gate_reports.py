"""The reports of a run's gate: ``gate.json``, and one for each later evaluation."""

import json
from datetime import datetime
from typing import Any

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.run_folder import RunFolder


def stamp_of(at: datetime) -> str:
    """A time, UTC, as it stands in the names of what a later evaluation writes."""
    return f"{at:%Y%m%dT%H%M%S%fZ}"


def read_report(folder: RunFolder, checked_at: str | None) -> dict[str, Any] | None:
    """The report of one evaluation by today's names, else the newest; None without any."""
    names = file_io.file_names(folder.path)
    reports = [name for name in names if name.startswith("gate-") and name.endswith(".json")]
    # A stamped report is of a later evaluation; the stamps sort by time.
    newest_first = [*sorted(reports, reverse=True), *(["gate.json"] if "gate.json" in names else [])]
    found = None
    for name in newest_first:
        path = folder.path / name
        report: dict[str, Any] = json.loads(file_io.in_todays_format(path, path.read_bytes()))
        if checked_at is None or report.get("checked_at") == checked_at:
            return report
        found = found or report
    return found
