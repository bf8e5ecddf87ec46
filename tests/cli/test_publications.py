"""What ``s2v publications --json`` prints is what the sensor of the Airflow provider reads."""

import json
from collections.abc import Callable
from pathlib import Path

import made_run
import pytest
from made_run import row
from s2v_airflow.publications import wanted

ROWS = made_run.verdicts(row("a.example", "web", "passed", 1))
S2V = Callable[..., tuple[int, str, str]]


def published(s2v: S2V, out: Path) -> dict[str, object]:
    status, printed, _ = s2v("publications", str(out), "--json")
    assert status == 0
    found: dict[str, object] = json.loads(printed)
    return found


@pytest.mark.parametrize(
    ("after", "is_found"),
    [(None, True), ("2026-10-02T02:00:01+00:00", True), ("2027-01-01T00:00:00+00:00", False)],
)
def test_the_sensor_finds_the_current_publication(
    s2v: S2V, tmp_path: Path, after: str | None, is_found: bool
) -> None:
    """With the path of its file; only one that is new enough."""
    assert wanted(published(s2v, tmp_path), after) is None
    for number, name in enumerate(["one", "two"], 1):
        path = made_run.made(tmp_path, name, ROWS, number)
    found = wanted(published(s2v, tmp_path), after)
    assert (found is not None) == is_found
    if found is not None:
        assert (found["run_id"], found["path"]) == ("two", f"{path}/approved.parquet")
