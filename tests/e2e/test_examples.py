"""The examples, and the page that they belong to: run as they stand."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from prefect import get_client
from prefect.exceptions import ObjectNotFound
from workbench import Bench, load, pointer, wait_until

from s2v_tasks import Advanced, CurateParameters, CurationResult, Screening
from s2v_tasks.errors import GateClosed, UsageError
from s2v_tasks.tasks import detect, verdicts

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "guides" / "flows.md").read_text("utf-8")
PRIVATE = Screening(allow_private_hosts=True)


def example(name: str) -> ModuleType:
    """A file of ``examples/``, loaded."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_on_the_page_and_run_here() -> None:
    """A file that is added must be listed and tested."""
    named = set(re.findall(r"\(\.\./\.\./examples/(\w+)\.py\)", PAGE))
    assert named == {path.stem for path in EXAMPLES.glob("*.py")}
    ours = Path(__file__).read_text("utf-8")
    assert named == set(re.findall(r'example\("(\w+)"\)', ours))


@pytest.mark.ci
async def test_a_subflow(in_process: Bench) -> None:
    """A caller gets the path of the published file, or the exception that says why there is none."""
    flow = example("as_subflow").prepare_training
    good = in_process.candidates(in_process.portraits(2))
    path = await flow(good, str(in_process.out), 1.0, screening=PRIVATE)
    assert path == pointer(in_process.out).path
    bad = in_process.candidates([in_process.url(1, "crowd")], "bad.parquet")
    with pytest.raises(GateClosed):
        await flow(bad, str(in_process.out), 1.0, screening=PRIVATE)


@pytest.fixture
def served(in_process: Bench) -> Iterator[None]:
    """`curate`, served as a deployment by a process of its own."""
    serve = "from s2v_tasks.flows.curate import curate; curate.serve('example', print_starting_message=False)"
    env = {**in_process.env, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    process = subprocess.Popen([sys.executable, "-c", serve], env=env, cwd=in_process.folder)

    def there() -> bool:
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):
            return client.read_deployment_by_name("curate/example") is not None
        return False

    wait_until(there, 240)
    yield
    process.terminate()
    process.wait(60)


@pytest.mark.slow
async def test_a_deployment(in_process: Bench, served: None) -> None:
    """It runs in the process that serves it; the flow that started it reads the pointer."""
    flow = example("as_deployment").prepare_training
    candidates = in_process.candidates(in_process.portraits(2))
    groups = {"screening": {"allow_private_hosts": True}}
    path = await flow(candidates, str(in_process.out), 1.0, "curate/example", **groups)
    assert path == pointer(in_process.out).path
    assert len(in_process.billed_urls()) == 2
    bad = in_process.candidates([in_process.url(1, "crowd")], "bad.parquet")
    with pytest.raises(RuntimeError, match="not curated: Gate closed: pass_rate"):
        await flow(bad, str(in_process.out), 1.0, "curate/example", **groups)


@pytest.mark.ci
async def test_single_tasks_with_a_stage_of_ones_own(in_process: Bench) -> None:
    """Small images are refused for free by the added stage; the rest is a curation like any other."""
    flow = example("by_tasks").close_ups
    large = [in_process.url(n, query="?width=800&height=800") for n in range(3)]
    parameters = CurateParameters(
        candidates=in_process.candidates([*large, *in_process.portraits(2, 50)]),
        out=str(in_process.out),
        budget_usd=1.0,
        screening=PRIVATE,
        advanced=Advanced(shard_size=2),
    )
    run: CurationResult = await flow(parameters)
    assert (run.status, run.summary.passed, run.summary.screened_out) == ("published", 3, 2)
    assert sorted(in_process.billed_urls()) == sorted(large)
    assert load(run.run_dir / "manifest.json")["status"] == "published"
    assert pointer(in_process.out).rows == 3

    alone = example("one_task")
    publication = await alone.publish_if_good(str(run.run_dir), 0.9)
    assert publication.run_id == run.run_id
    seen = await alone.worth_screening(parameters.candidates, PRIVATE)
    assert seen["screen_reason"].null_count() == 5
    assert sorted(seen["width_px"]) == [480, 480, 800, 800, 800]
    assert len(in_process.billed_urls()) == 3


async def test_a_paying_task_alone_says_what_it_needs() -> None:
    """Without an open curation there is no ledger and no budget, so nothing is sent."""
    with pytest.raises(UsageError, match=r"detect needs a ledger and a budget: .* open_curation"):
        await detect.fn(None)
    with pytest.raises(UsageError, match="verdicts needs a ledger"):
        await verdicts.fn()
