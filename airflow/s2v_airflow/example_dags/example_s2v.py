"""Curate every night, and train on what was published, only when something was."""

import os
from typing import Any

import pendulum
from airflow.sdk import DAG, task

from s2v_airflow.assets import published
from s2v_airflow.operators.s2v import S2VCurateOperator

CANDIDATES = os.environ.get("S2V_EXAMPLE_CANDIDATES", "/data/candidates/{{ ds }}.parquet")
OUT = os.environ.get("S2V_EXAMPLE_OUT", "/data/curated")
S2V = os.environ.get("S2V_EXAMPLE_COMMAND", "/opt/s2v/bin/s2v")

with DAG(
    dag_id="s2v_curate",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
):
    S2VCurateOperator(
        task_id="curate",
        candidates=CANDIDATES,
        out=OUT,
        budget_usd=5.0,
        options={
            "min-pass-rate": 0.6,
            "allow-private-hosts": bool(os.environ.get("S2V_EXAMPLE_PRIVATE")),  # sample images on loopback
        },
        s2v=S2V,
        retries=3,
    )

with DAG(dag_id="s2v_train", schedule=[published(OUT)], start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):

    @task
    def train(triggering_asset_events: Any = None) -> list[str]:
        """A stub: the paths of the published files that started this run."""
        events = [event for group in (triggering_asset_events or {}).values() for event in group]
        paths = [event.extra["published_file"] for event in events]
        print(f"would train on {paths}")
        return paths

    train()
