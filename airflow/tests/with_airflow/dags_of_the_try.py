"""The DAGs of `in_airflow`: one for each end of a curation run, started once; and the example's."""

import json
import os
from datetime import timedelta

import pendulum
from airflow.sdk import DAG
from s2v_airflow.example_dags.example_s2v import *
from s2v_airflow.operators.s2v import S2VCurateOperator, S2VGateOperator
from s2v_airflow.sensors.s2v import S2VPublishedSensor

S2V = os.environ["S2V_EXAMPLE_COMMAND"]

for name, given in json.loads(os.environ["S2V_TRY"]).items():
    with DAG(
        dag_id=f"try_{name}",
        schedule="@once",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=True,
    ):
        curate = S2VCurateOperator(
            task_id="curate",
            candidates=given["candidates"],
            out=given["out"],
            budget_usd="{{ '%s' }}" % given["budget_usd"],
            options={"allow-private-hosts": True, **given.get("options", {})},
            s2v=S2V,
            env={"DASHSCOPE_HTTP_BASE_URL": given["service"]},
            on_exhausted=given.get("on_exhausted", "fail"),
            retries=given.get("retries", 0),
            retry_delay=timedelta(seconds=1),
        )
        if name == "published":
            gate = S2VGateOperator(
                task_id="gate", run_dir="{{ ti.xcom_pull('curate')['run_dir'] }}", publish=False, s2v=S2V
            )
            curate >> gate
            if given["has_publications"]:
                gate >> S2VPublishedSensor(task_id="wait", out=given["out"], s2v=S2V, poke_interval=5)
