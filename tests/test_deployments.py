"""The files in deployments/ fit the package, as far as a test without a container engine can check."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import Settings
from prefect.settings.base import PrefectBaseSettings
from prefect.workers.process import ProcessWorker

from s2v_tasks.adapters.database.connection import ledger_url
from s2v_tasks.settings import PREFECT_TAG, CurateParameters, DashScope, Environment

ROOT = Path(__file__).parent.parent
PREFECT = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text("utf-8"))
COMPOSE = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text("utf-8"))
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text("utf-8")
DEPLOYMENTS = {d["name"]: d for d in PREFECT["deployments"]}
PAGE = (ROOT / "docs" / "guides" / "prefect.md").read_text("utf-8")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_a_flow_that_takes_its_parameters(name: str, monkeypatch: Any) -> None:
    """Each entry point loads from the root, and what it is given passes the flow's own validation."""
    monkeypatch.chdir(ROOT)
    deployment = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    given = deployment.get("parameters", {})
    needed = set(flow.parameters.required) - set(given) if given else set()
    assert needed == set()
    if given:
        flow.validate_parameters(given)
    for trigger in deployment.get("triggers", []):
        assert set(trigger["parameters"]) <= set(flow.parameters.properties)
    assert PREFECT_TAG in deployment["tags"]


def test_a_schedule_that_spends_money_comes_switched_off() -> None:
    """Deploying all is no consent to a nightly bill; cron and time zone are said."""
    (schedule,) = DEPLOYMENTS["curate-nightly"]["schedules"]
    assert schedule == {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "active": False}


def copied() -> list[str]:
    return [
        word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]


def test_the_image_holds_what_the_package_is_built_from(tmp_path: Path) -> None:
    """The files that the Dockerfile copies are there, and a wheel can be built from them alone."""
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    ran = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert list((tmp_path / "dist").glob("s2v_tasks-*.whl"))


def known_to_prefect(settings: type[PrefectBaseSettings]) -> set[str]:
    """The names of all environment variables that Prefect reads."""
    found = set()
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, PrefectBaseSettings):
            found |= known_to_prefect(kind)
            continue
        start = str(settings.model_config.get("env_prefix") or "")
        found.add(f"{start}{name}".upper())
        choices = getattr(field.validation_alias, "choices", [])
        found |= {choice.upper() for choice in choices if isinstance(choice, str)}
    return found


def test_every_variable_is_read_by_someone() -> None:
    """A misspelt name would be ignored in silence: by us, by Prefect, by PostgreSQL's image."""
    ours = {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (DashScope, Environment)
        for name in settings.model_fields
    }
    known = ours | known_to_prefect(Settings) | {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
    used = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    in_image = set(re.findall(r"\b((?:PREFECT|S2V|DASHSCOPE)_[A-Z_]+)=", DOCKERFILE))
    assert used | in_image <= known
    worker = COMPOSE["services"]["worker"]["environment"]
    assert ledger_url(worker["S2V_LEDGER_URL"].replace("${POSTGRES_PASSWORD}", "x")).database == "ledger"


def test_every_command_is_one_of_the_pages() -> None:
    """What the containers run is on the page of Prefect, whose commands are run by tests."""
    page = PAGE.replace("prefect deploy ", "prefect --no-prompt deploy ")
    for service in COMPOSE["services"].values():
        command = service.get("command", [])
        for line in command[2].splitlines() if command[:1] == ["sh"] else [" ".join(command)]:
            assert line.removesuffix(" --host 0.0.0.0") in page


def test_services_and_files_hang_together() -> None:
    """Every service that another depends on exists; mounted files exist; the pool is ours."""
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for waits in service.get("depends_on", {}):
            if service["depends_on"][waits]["condition"] == "service_healthy":
                assert "healthcheck" in services[waits]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / "deployments" / source).is_file()
            elif not source.startswith("../"):
                assert source in COMPOSE["volumes"]
    dockerfile = services["worker"]["build"]["dockerfile"]
    assert (ROOT / dockerfile).is_file()
    assert {d["work_pool"]["name"] for d in DEPLOYMENTS.values()} == {"s2v"}
    assert ProcessWorker.type == "process"
    assert os.access(ROOT / "deployments" / "ledger.sql", os.R_OK)


def test_the_page_shows_what_the_file_says() -> None:
    """The page of Prefect shows the deployment's trigger, and parameters that a run takes."""
    parts = [
        yaml.safe_load(part) for part in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]
    spending, trigger = parts[0]["parameters"]["spending"], parts[1]["triggers"][0]
    (deployed,) = DEPLOYMENTS["train-stub"]["triggers"]
    assert trigger.items() <= deployed.items()
    CurateParameters.model_validate({"candidates": "c", "out": "o", "budget_usd": 1, "spending": spending})
