"""The operators on Airflow's own classes: where it is installed, ``pytest airflow/tests/with_airflow``."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk")

from airflow.sdk import DAG, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization
from s2v_airflow.assets import published
from s2v_airflow.get_provider_info import get_provider_info
from s2v_airflow.operators.s2v import S2VCurateOperator, S2VGateOperator
from s2v_airflow.sensors.s2v import S2VPublishedSensor

FAKE = """#!/usr/bin/env python3
import json, os, sys
if "--schema" in sys.argv:
    kinds = {"out": "string", "budget-usd": "number", "run-id": "string", "sample": "integer"}
    properties = {name: dict(type=kind) for name, kind in kinds.items()}
    print(json.dumps(dict(properties=properties, additionalProperties=False)))
    sys.exit()
open(os.environ["SEEN"], "a").write(json.dumps(sys.argv[1:]) + "\\n")
print("progress", file=sys.stderr)
found = json.loads(os.environ["RESULT"])
print(json.dumps(found))
sys.exit(found["exit_status"])
"""


class Instance:
    """What the operators use of a task instance."""

    dag_id, run_id, task_id, map_index = "d", "scheduled__2026-11-27T02:00:00+00:00", "curate", -1

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


class Events(dict[Any, Any]):
    """The accessors of outlet events."""

    def __missing__(self, key: Any) -> list[Any]:
        added: list[Any] = []

        class Accessor:
            def add(self, asset: Any, extra: Any) -> None:
                added.append((asset, extra))

        self[key] = Accessor()
        self[key].added = added
        return self[key]


@pytest.fixture
def s2v(tmp_path: Path) -> str:
    """A command that ends as the environment says."""
    path = tmp_path / "s2v"
    path.write_text(FAKE)
    path.chmod(0o755)
    return str(path)


def curate(s2v: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Any, Any, Any]:
    """Run the operator against a result; gives the operator, its instance and the events."""
    import json

    monkeypatch.setenv(
        "AIRFLOW_CONN_DASHSCOPE_DEFAULT", json.dumps({"conn_type": "generic", "password": "sk-key"})
    )
    result = {"exit_status": 0, "retryable": False, "published": False, "message": "m", "run_id": "r",
              "published_file": "/p", **more.pop("result")}  # fmt: skip
    with DAG("d"):
        operator = S2VCurateOperator(
            task_id="curate", candidates="c.csv", out=str(tmp_path), budget_usd="1.0", s2v=s2v,
            env={"RESULT": json.dumps(result), "SEEN": str(tmp_path / "seen")}, **more,
        )  # fmt: skip
    return operator, Instance(), Events()


@pytest.mark.parametrize(
    ("result", "options", "error"),
    [
        ({"kind": "gate_closed", "exit_status": 3}, {}, AirflowFailException),
        ({"kind": "account", "exit_status": 1, "retryable": True}, {}, AirflowFailException),
        ({"kind": "outage", "exit_status": 1, "retryable": True}, {}, AirflowException),
        ({"kind": "budget_exhausted", "exit_status": 4}, {}, AirflowFailException),
        ({"kind": "budget_exhausted", "exit_status": 4}, {"on_exhausted": "skip"}, AirflowSkipException),
        ({"kind": "published"}, {"options": {"sample": "many"}}, AirflowFailException),
        ({"kind": "published"}, {"options": {"smaple": 1}}, AirflowFailException),
    ],
)
def test_an_end_is_airflow_s_exception(
    s2v: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Any, options: Any, error: Any
) -> None:
    """No event, and the result in XCom."""
    operator, ti, events = curate(s2v, tmp_path, monkeypatch, result=result, **options)
    with pytest.raises(error) as ended:
        operator.execute({"ti": ti, "outlet_events": events})
    assert type(ended.value) is error
    assert not events


def test_a_publication_is_an_event_of_the_folder_s_asset(
    s2v: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with exit 4; the key is in the environment and not among the arguments."""
    result = {"kind": "published", "published": True, "exit_status": 4}
    operator, ti, events = curate(s2v, tmp_path, monkeypatch, result=result, options={"sample": "3"})
    found = operator.execute({"ti": ti, "outlet_events": events})
    ((asset, extra),) = next(iter(events.values())).added
    assert (asset, extra) == (published(str(tmp_path)), {"run_id": "r", "published_file": "/p"})
    assert found["published_file"] == "/p"
    seen = (tmp_path / "seen").read_text()
    assert "--sample=3" in seen
    assert "--run-id=airflow-" in seen
    assert "sk-key" not in seen


def test_the_parts_are_found_and_serialised() -> None:
    """A DAG with all of them; nothing is checked or started when it is parsed."""
    with DAG("d") as dag:
        S2VCurateOperator(task_id="a", candidates="c", out="/o", budget_usd=1, options={"x": 1}, s2v="/none")
        S2VGateOperator(task_id="b", run_dir="/o/runs/r", s2v="/none")
        S2VPublishedSensor(task_id="c", out="/o", s2v="/none")
    assert len(DagSerialization.serialize_dag(dag)["tasks"]) == 3
    assert get_provider_info()["package-name"] == "airflow-provider-s2v-tasks"
    assert Connection
