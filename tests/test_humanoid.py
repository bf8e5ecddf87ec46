"""Nothing depends on ``humanoid``: a drawn portrait that passes the check is a pass."""

import json
from pathlib import Path

import pytest
from support import PRICE, EngineHarness, JumpingClock, make_images

from s2v_tasks.domain.detect import parse_response
from s2v_tasks.domain.passing_segments import approved
from s2v_tasks.domain.verdict_table import checked_frame
from s2v_tasks.models import WAN22_S2V_DETECT, Outcome

SUITES = sorted((Path(__file__).parents[1] / "expectations").glob("*.json"))


async def test_a_pass_is_a_pass_whatever_humanoid_says(tmp_path: Path) -> None:
    """True, false or absent: passed, billed, remembered and approved alike."""
    outputs = [
        {"check_pass": True, "humanoid": True},
        {"check_pass": True, "humanoid": False},
        {"check_pass": True},
    ]
    responses = [
        parse_response(WAN22_S2V_DETECT, 200, {}, json.dumps({"output": o}).encode()) for o in outputs
    ]
    harness = EngineHarness(tmp_path, JumpingClock())
    async with harness.ledger:
        service = harness.scripted(lambda n, url: responses[n])
        engine = harness.engine(await harness.lease("a"), service)
        verdicts = await engine.check_images(make_images(3))
        known = await harness.engine(await harness.lease("b"), service).known([v.image_key for v in verdicts])
    assert {(v.outcome, v.reason, v.check_pass, v.run_cost_micro_usd) for v in verdicts} == {
        (Outcome.PASSED, None, True, PRICE)
    }
    assert len(known) == 3
    frame = checked_frame(verdicts)
    assert frame["humanoid"].to_list() == [True, False, None]
    assert approved(frame.lazy()).collect().height == 3


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_no_expectation_reads_humanoid(suite: Path) -> None:
    """The suites name it only where they list the columns that must be there."""
    for expectation in json.loads(suite.read_text("utf-8"))["expectations"]:
        said = {k: v for k, v in expectation["kwargs"].items() if k not in {"column_list", "column_set"}}
        assert "humanoid" not in json.dumps(said)
