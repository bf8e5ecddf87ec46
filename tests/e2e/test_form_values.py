"""Values of a form, sent to a real Prefect server: a bad one is refused before there is a run."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import get_client
from s2v_tasks.flows.curate import curate
from s2v_tasks.flows.gate import gate
from s2v_tasks.flows.pipeline import pipeline
from workbench import flow_runs

CURATE = {"candidates": "c.parquet", "out": "out", "budget_usd": 1.0}
PIPELINE = {**CURATE, "downstream": "train/nightly"}
GATE = {"run_dir": "out/runs/20261001T020000Z-a1b2c3"}


@pytest.fixture(scope="module")
def deployed(prefect_api: str) -> dict[str, UUID]:
    """A deployment of each flow; nothing works on them."""
    found = {}
    for flow in (curate, gate, pipeline):
        deployment: Any = flow.to_deployment("form")
        found[flow.name] = deployment.apply()
    return found


def sent(deployment: UUID, parameters: dict[str, Any]) -> tuple[int, str]:
    """Start a run as the form does: the server's status and its words."""
    with get_client(sync_client=True) as client:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        try:
            answer = client._client.post(  # noqa: SLF001  (it tries again while the server is busy)
                f"/deployments/{deployment}/create_flow_run", json=body
            )
        except httpx.HTTPStatusError as refused:
            answer = refused.response
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("flow", "good", "bad"),
    [
        ("curate", CURATE, {"candidates": ""}),
        ("curate", CURATE, {"out": None}),
        ("curate", CURATE, {"budget_usd": 0}),
        ("curate", CURATE, {"budget_usd": "much"}),
        ("curate", CURATE, {"source": {"limit": 0}}),
        ("curate", CURATE, {"source": {"url_column": ""}}),
        ("curate", CURATE, {"source": {"url_colum": "link"}}),
        ("curate", CURATE, {"screening": {"enabled": "perhaps"}}),
        ("curate", CURATE, {"screening": {"estimate_from": -1}}),
        ("curate", CURATE, {"thresholds": {"min_pass_rate": 1.5}}),
        ("curate", CURATE, {"thresholds": {"max_cost_usd": -1}}),
        ("curate", CURATE, {"spending": {"on_unknown": "never"}}),
        ("curate", CURATE, {"spending": {"ledger": "mysql://h/d"}}),
        ("curate", CURATE, {"spending": {"ledger": "postgresql://u:password@h/d"}}),
        ("curate", CURATE, {"spending": {"approve_above_usd": -1}}),
        ("curate", CURATE, {"spending": {"approve_within_h": 0}}),
        ("curate", CURATE, {"output": {"shard_size": 0}}),
        ("curate", CURATE, {"run_id": "../x"}),
        ("pipeline", PIPELINE, {"downstream": ""}),
        ("pipeline", PIPELINE, {"downstream_parameter": "a b"}),
        ("pipeline", PIPELINE, {"thresholds": {"max_error_share": -0.1}}),
        ("gate", GATE, {"run_dir": ""}),
        ("gate", GATE, {"thresholds": {"min_pass_rate": -1}}),
        ("gate", GATE, {"publish": "soon"}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:60],
)
def test_a_bad_value_is_refused_before_there_is_a_run(
    deployed: dict[str, UUID], flow: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    """The server answers 409 and names the value; no run is made of it."""
    before = len(flow_runs(flow, 50))
    status, words = sent(deployed[flow], {**good, **bad})
    assert status == 409, words
    assert "Error creating flow run: Validation failed" in words
    assert len(flow_runs(flow, 50)) == before


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        ("curate", CURATE),
        ("curate", {**CURATE, "spending": {"ledger": "postgresql://s2v@h/d", "approve_above_usd": 20}}),
        ("curate", {**CURATE, "spending": {"ledger": "postgres://h/d"}}),
        ("curate", {**CURATE, "spending": {"ledger": "sqlite:////data/ledger.sqlite3"}, "run_id": "a-1"}),
        ("pipeline", PIPELINE),
        ("gate", {**GATE, "thresholds": {"min_pass_rate": 0.4}, "publish": True}),
    ],
    ids=str,
)
def test_good_values_make_a_run(deployed: dict[str, UUID], flow: str, parameters: dict[str, Any]) -> None:
    """What the form proposes, and what it gives as examples, is taken."""
    status, words = sent(deployed[flow], parameters)
    assert status == 201, words
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(json.loads(words)["id"]))


def test_every_example_of_a_form_is_taken(deployed: dict[str, UUID]) -> None:
    """An example that the form itself refuses would be worse than none."""
    with get_client(sync_client=True) as client:
        for flow, deployment in deployed.items():
            schema = client.read_deployment(deployment).parameter_openapi_schema
            assert schema is not None
            required = {"curate": CURATE, "gate": GATE, "pipeline": PIPELINE}[flow]
            for group, node in [(None, schema), *schema["definitions"].items()]:
                for name, field in node["properties"].items():
                    for example in field.get("examples", []):
                        value = {name: example} if group is None else {group.lower(): {name: example}}
                        status, words = sent(deployment, {**required, **value})
                        assert status == 201, words
                        client.delete_flow_run(UUID(json.loads(words)["id"]))
