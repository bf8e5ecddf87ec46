"""Ten images against each refusal of the account: few calls, a helpful message, nothing paid twice.

The engine and a real ledger on a clock that jumps; responses are immediate.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import PASSED, PRICE, EngineHarness, JumpingClock, Scripted, make_images, outcomes

from s2v_tasks.domain.detect import DetectResponse, parse_response
from s2v_tasks.domain.systemic_refusal import Refusals
from s2v_tasks.errors import AccountRefused
from s2v_tasks.models import WAN22_S2V_DETECT, Outcome, UniqueImage, Verdict
from s2v_tasks.runtime.engine import Engine

IMAGES = 10
MAX_CALLS = 6
"""When responses are immediate: the sixth may be on its way when the fifth is refused."""


def nested(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}, "request_id": "r"}


def flat(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "r"}


URL_ERROR = flat("InvalidParameter", "url error, please check url！")  # noqa: RUF001
CASES: list[tuple[int, Any, int, str]] = [
    # status, body, calls, message. Source: responses in public, 2024-11 to 2026-11.
    (
        400,
        nested("Arrearage", "Credentials denied, please make sure your account is in good image_status."),
        1,
        "pay",
    ),
    (401, nested("invalid_api_key", "Incorrect API key provided."), 1, "DASHSCOPE_API_KEY"),
    (403, nested("Workspace.AccessDenied", "Workspace access denied."), 1, "workspace"),
    (403, nested("AllocationQuota.FreeTierOnly", "The free tier ... exhausted."), 1, "free tier only"),
    (404, None, 1, "/api/v1"),
    (404, flat("NotFound", "Not found!"), 1, "/api/v1"),
    (404, nested("model_not_found", "The model does not exist or ..."), 1, "model's name"),
    (403, flat("access_denied", "Credentials denied."), 1, "grant"),
    (403, flat("Endpoint.AccessDenied", "Workspace endpoint access denied."), 1, "DASHSCOPE_HTTP_BASE_URL"),
    (400, flat("isv.OUT_OF_SERVICE", ""), 1, "pay"),
    (403, {"message": "Credentials denied due to overdue account"}, 1, "pay"),
    (307, None, MAX_CALLS, "DASHSCOPE_HTTP_BASE_URL"),
    (402, {"error": "Payment Required"}, 1, "pay"),
    (429, flat("BudgetLimitExceeded", ""), 1, "spending limit"),
    (400, flat("InvalidParameter", "Field required: input.media"), MAX_CALLS, "newer s2v-tasks"),
    (400, nested("Brandnew.Refusal", "Not for you."), MAX_CALLS, "vendor's console"),
    (405, None, MAX_CALLS, "DASHSCOPE_HTTP_BASE_URL"),
    (400, URL_ERROR, MAX_CALLS, "DASHSCOPE_HTTP_BASE_URL"),
]
UNLISTED = parse_response(WAN22_S2V_DETECT, 400, {}, b'{"code":"Brandnew","message":"m","request_id":"r"}')


def read(status: int, body: Any) -> DetectResponse:
    return parse_response(WAN22_S2V_DETECT, status, {}, b"" if body is None else json.dumps(body).encode())


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[EngineHarness]:
    harness = EngineHarness(tmp_path, JumpingClock())
    async with harness.ledger:
        yield harness


async def process(
    harness: EngineHarness, service: Scripted, images: list[UniqueImage], before: Engine | None = None
) -> tuple[Engine, list[Verdict]]:
    """One process of the same run, to its end; it begins with what the one before it suspected."""
    lease = await harness.lease("a")
    engine = harness.engine(lease, service)
    if before is not None:
        engine.refusals = Refusals(
            succeeded=before.refusals.succeeded, stop_counts=before.refusals.stop_counts
        )
    verdicts = await engine.check_images(images)
    await engine.finish()
    await lease.close("stopped")
    return engine, verdicts


def of_host(host: str, count: int) -> list[UniqueImage]:
    return make_images(count, f"http://{host}")


@pytest.mark.parametrize(
    ("status", "body", "calls", "message"), CASES, ids=[f"{s}-{json.dumps(b)[:48]}" for s, b, *_ in CASES]
)
async def test_a_refused_account_takes_few_calls_and_the_same_command_goes_on(
    harness: EngineHarness, status: int, body: Any, calls: int, message: str
) -> None:
    """Exit status 1 with a message that helps; after the fix every image is billed once."""
    images = make_images(IMAGES)
    service = harness.scripted(lambda n, url: read(status, body))
    engine, verdicts = await process(harness, service, images)
    assert len(service.sent_s) <= calls
    assert isinstance(engine.stopped, AccountRefused)
    assert (engine.stopped.exit_status, engine.stopped.retryable) == (1, True)
    assert message in str(engine.stopped)
    assert outcomes(verdicts) == {Outcome.SKIPPED: IMAGES}
    assert {v.reason for v in verdicts} == {"run_stopped"}
    fixed = harness.scripted(lambda n, url: PASSED)
    _, verdicts = await process(harness, fixed, images, engine)
    assert outcomes(verdicts) == {Outcome.PASSED: IMAGES}
    assert len(fixed.sent_s) == IMAGES
    assert [v.lifetime_cost_micro_usd for v in verdicts] == [PRICE] * IMAGES


async def test_the_next_image_after_four_of_one_host_is_of_another(harness: EngineHarness) -> None:
    """Twelve of a host whose images are refused, then one of another: it is the fifth, and it passes."""
    images = [*of_host("a.example", 12), *of_host("b.example", 1)]
    service = harness.scripted(lambda n, url: UNLISTED if "a.example" in url else PASSED)
    await process(harness, service, images)
    assert ["b.example" in url for url in service.urls[:5]] == [False] * 4 + [True]


async def test_images_that_stopped_a_run_are_sent_last_when_it_continues(harness: EngineHarness) -> None:
    """After a fix the others come first; then the suspected ones are as good as any."""
    images = make_images(IMAGES)
    engine, _ = await process(harness, harness.scripted(lambda n, url: UNLISTED), images)
    suspects = {c.url for c in images if c.image_key in engine.refusals.stop_counts}
    assert 5 <= len(suspects) <= MAX_CALLS
    fixed = harness.scripted(lambda n, url: PASSED)
    await process(harness, fixed, images, engine)
    assert {json.loads(body)["input"]["image_url"] for body in fixed.urls[-len(suspects) :]} == suspects


async def test_images_refused_after_others_passed_are_unrecognised(harness: EngineHarness) -> None:
    """The account works, so no second stop comes: each is sent once more, late, and then an error."""
    images = make_images(IMAGES)
    engine, _ = await process(harness, harness.scripted(lambda n, url: UNLISTED), images)
    bad = {c.url for c in images if c.image_key in engine.refusals.stop_counts}

    def script(n: int, body: str) -> DetectResponse:
        return UNLISTED if json.loads(body)["input"]["image_url"] in bad else PASSED

    again, verdicts = await process(harness, harness.scripted(script), images, engine)
    assert again.stopped is None
    assert outcomes(verdicts) == {Outcome.PASSED: IMAGES - len(bad), Outcome.ERROR: len(bad)}
    assert {v.reason for v in verdicts if v.outcome is Outcome.ERROR} == {"unrecognised"}


async def test_the_same_images_stop_a_run_twice_and_then_are_unrecognised(harness: EngineHarness) -> None:
    """Five images that nothing else can vouch for: two stops, then an end."""
    images = make_images(5)
    refused = harness.scripted(lambda n, url: UNLISTED)
    first, _ = await process(harness, refused, images)
    second, _ = await process(harness, refused, images, first)
    third, verdicts = await process(harness, refused, images, second)
    assert [life_.stopped is not None for life_ in (first, second, third)] == [True, True, False]
    assert {(v.outcome, v.reason) for v in verdicts} == {(Outcome.ERROR, "unrecognised")}


async def test_a_url_error_after_a_verdict_is_the_vendors_failure_to_read_an_image(
    harness: EngineHarness,
) -> None:
    """The path is right, so each such image is sent once more, much later."""
    images = make_images(IMAGES)
    refused = read(400, URL_ERROR)
    service = harness.scripted(lambda n, body: PASSED if n == 0 else refused)
    engine, verdicts = await process(harness, service, images)
    assert engine.stopped is None
    assert {v.reason for v in verdicts} == {None, "origin_failed"}
    assert outcomes(verdicts) == {Outcome.PASSED: 1, Outcome.ERROR: IMAGES - 1}
