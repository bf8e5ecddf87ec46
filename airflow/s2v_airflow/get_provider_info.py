"""What Airflow shows of this provider, and where it finds operators, sensors, triggers and links."""

from typing import Any

from s2v_airflow import __version__

_NAME = "s2v-tasks"


def get_provider_info() -> dict[str, Any]:
    """The entry point ``apache_airflow_provider``."""
    return {
        "package-name": "airflow-provider-s2v-tasks",
        "name": _NAME,
        "description": "Curate portrait-image URLs behind a paid check and a gate.",
        "versions": [__version__],
        "integrations": [{"integration-name": _NAME, "tags": ["service"]}],
        "operators": [{"integration-name": _NAME, "python-modules": ["s2v_airflow.operators.s2v"]}],
        "sensors": [{"integration-name": _NAME, "python-modules": ["s2v_airflow.sensors.s2v"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": ["s2v_airflow.triggers.s2v"]}],
        "extra-links": ["s2v_airflow.links.s2v.ReportLink"],
    }
