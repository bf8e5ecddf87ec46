"""Links from a task to what its run wrote."""

from typing import Any

from airflow.sdk import BaseOperatorLink


class ReportLink(BaseOperatorLink):
    """The report of the run; its folder, if it has no report."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002
        """Where it is; called by the worker when the task has ended."""
        result = getattr(operator, "result", None) or {}
        place = result.get("report") or result.get("run_dir") or ""
        prefix = getattr(operator, "report_url_prefix", None)
        if not place or "://" in place:
            return str(place)
        out = getattr(operator, "out", None)
        if prefix and out and place.startswith(f"{out.rstrip('/')}/"):
            return prefix.rstrip("/") + place[len(out.rstrip("/")) :]
        return f"file://{place}"
