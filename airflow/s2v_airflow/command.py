"""The ``s2v`` command: its command line, its environment, and what its result means for a task.

Nothing here needs Airflow, or starts a process.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

_NOT_PASSED_ON = ("AIRFLOW", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "DASHSCOPE_API_KEY")
"""Variables of the worker that mean another environment, hold its secrets, or are replaced."""


class End(Enum):
    """What becomes of the task."""

    PUBLISHED = "success, with an asset event"
    SUCCESS = "success"
    SKIP = "skipped"
    RETRY = "failed; a retry continues the run"
    FAIL = "failed; no retry helps"


@dataclass(frozen=True)
class Ended:
    """A command that ended: the one object that it printed, or none if it was killed."""

    status: int
    result: dict[str, Any] | None

    def means(self, *, skip_if_exhausted: bool = False) -> End:
        """What the object says, not the status alone: a run that published may have status 4.

        An account that is refused may be retried by a person who fixed it, not by Airflow.
        """
        if self.result is None:
            return End.RETRY if self.status < 0 or self.status > 128 else End.FAIL
        kind = self.result["kind"]
        if self.result["published"]:
            return End.PUBLISHED
        if self.status == 0:
            return End.SUCCESS
        if kind == "budget_exhausted" and skip_if_exhausted:
            return End.SKIP
        return End.RETRY if self.result["retryable"] and kind != "account" else End.FAIL

    @property
    def message(self) -> str:
        """The end in a sentence."""
        if self.result is None:
            return f"s2v ended with status {self.status} and without a result; the log says more"
        return f"{self.result['kind']}: {self.result['message']}"


def parse(status: int, out: bytes) -> Ended:
    """What a command printed; nothing but one JSON object of this kind is a result."""
    try:
        found = json.loads(out)
    except ValueError:
        return Ended(status, None)
    known = isinstance(found, dict) and {"kind", "retryable", "published", "message"} <= found.keys()
    return Ended(status, found if known else None)


def run_id(dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> str:
    """The id of the curation run of a task instance: a retry of the task continues the same run.

    It is a hash, because Airflow's ids hold ``:`` and ``+``, which ``--run-id`` refuses.
    """
    name = json.dumps([dag_id, dag_run_id, task_id, map_index])
    return f"airflow-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def typed(options: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the types of the schema: a template gives texts, also for numbers and switches.

    What can't be read stays as it is, for the schema to refuse.
    """
    return {
        name: _typed(value, schema["properties"].get(name, {}).get("type")) for name, value in options.items()
    }


def _typed(value: Any, kind: str | None) -> Any:
    if kind == "array" and isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str):
        return value
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[value.lower()]
        return {"integer": int, "number": float}.get(str(kind), str)(value)
    except (KeyError, ValueError):
        return value


def arguments(options: Mapping[str, Any], positional: Sequence[str] = ()) -> list[str]:
    """Options and arguments as on the command line; no value can be taken for an option."""
    line = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        for one in values:
            if one is True:
                line.append(f"--{name}")
            elif one is not False:
                line.append(f"--{name}={one}")
    return [*line, "--json", "--", *positional] if positional else [*line, "--json"]


def environment(
    worker: Mapping[str, str] = os.environ, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The command's environment: the worker's without what belongs to Airflow, and more."""
    kept = {name: value for name, value in worker.items() if not name.startswith(_NOT_PASSED_ON)}
    return {**kept, **(more or {})}


def xcom(result: Mapping[str, Any]) -> dict[str, Any]:
    """What other tasks may want to know of a run."""
    names = (
        "kind",
        "published",
        "message",
        "run_id",
        "run_dir",
        "published_file",
        "report",
        "counts",
        "cost",
        "face_check",
    )
    return {name: result.get(name) for name in names}
