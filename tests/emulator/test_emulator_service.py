"""The documented call, over real HTTP."""

import csv
import io
import random
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from emulator_caller import Caller

from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.emulator.fixture import EmulatorFactory
from s2v_tasks.errors import UsageError

GOOD = "gen/portrait-1.jpg"


def rule(response: httpx.Response) -> str:
    return response.headers["x-emulator-rule"]


def test_a_good_portrait_passes_and_is_billed_at_list_price(caller: Caller) -> None:
    """The passed response has the documented shape, and one line of the invoice has its request id."""
    response = caller.send_sample(GOOD)
    request_id = response.headers["x-request-id"]
    assert response.status_code == 200
    assert response.json() == {
        "output": {"check_pass": True, "humanoid": True},
        "usage": {"image_count": 1},
        "request_id": request_id,
    }
    assert UUID(request_id).version == 4
    assert rule(response) == "one-person"
    [line] = caller.emulator.invoice()
    assert (line["request_id"], line["image_url"], line["micro_usd"]) == (request_id, caller.url(GOOD), 574)
    billed_at = datetime.fromisoformat(line["billed_at"])
    assert abs(datetime.now(UTC) - billed_at) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("word", "output"),
    [
        ("scenery", {"humanoid": False, "code": "InvalidFile.NoHuman"}),
        ("crowd", {"humanoid": True, "code": "InvalidFile.MultiHuman"}),
        ("back", {"code": "", "message": ""}),
        ("cartoon", {"humanoid": False, "code": "", "message": ""}),
    ],
)
def test_a_failed_check_is_a_billed_200_in_each_documented_shape(
    caller: Caller, word: str, output: dict[str, object]
) -> None:
    """The word in the file name decides; humanoid may be absent, code and message empty."""
    response = caller.send_sample(f"gen/{word}-7.jpg")
    said = response.json()["output"]
    assert response.status_code == 200
    assert said["check_pass"] is False
    assert {key: said[key] for key in output} == output
    assert ("humanoid" in said) == ("humanoid" in output)
    assert rule(response) == f"word:{word}"
    assert len(caller.emulator.invoice()) == 1


def test_a_failed_check_may_be_a_400_that_is_not_billed(caller: Caller) -> None:
    """One word gives the verdict as an error."""
    response = caller.send_sample("gen/nobody-7.jpg")
    assert (response.status_code, response.json()["code"]) == (400, "InvalidFile.NoHuman")
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert caller.emulator.invoice() == []


def test_only_whole_words_of_the_last_segment_decide(shared_emulator: Emulator, caller: Caller) -> None:
    """A folder called crowd or a file called background does not fail a portrait."""
    with Emulator(EmulatorOptions(limit=None, fetch_images=False)) as by_name:
        names = Caller(by_name, caller.http)
        assert rule(names.send("http://h/crowd/background.jpg?scenery")) == "one-person"
        assert rule(names.send("http://h/a/my_CROWD.jpg")) == "word:crowd"


@pytest.mark.parametrize(
    ("sides", "status"),
    [
        ((400, 400), 200),
        ((7000, 400), 200),
        ((400, 7000), 200),
        ((399, 640), 400),
        ((640, 399), 400),
        ((7001, 400), 400),
        ((400, 7001), 400),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp"])
def test_sides_of_400_to_7000_are_accepted_and_no_others(
    caller: Caller, sides: tuple[int, int], status: int, ending: str
) -> None:
    """The limits themselves are fine, in every format; the size is read from the file, not believed."""
    response = caller.send_sample(f"gen/portrait-2.{ending}?width={sides[0]}&height={sides[1]}")
    assert response.status_code == status
    if status == 400:
        assert (response.json()["code"], rule(response)) == ("InvalidFile.Resolution", "resolution")


@pytest.mark.parametrize(
    "name", ["animation-000.gif", "scan-000.tif", "drawing-000.svg", "login-000.jpg", "empty-000.jpg"]
)
def test_what_is_no_image_of_the_four_formats_is_a_format_error(caller: Caller, name: str) -> None:
    """The file's bytes decide, not its name or content type."""
    response = caller.send_sample(name)
    assert (response.status_code, response.json()["code"]) == (400, "InvalidFile.Format")
    assert caller.emulator.invoice() == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("{samples}/missing-000.jpg", "InvalidURL"),
        ("{samples}/gone-000.jpg", "InvalidURL"),
        ("{samples}/loop-000.jpg", "InvalidURL"),
        ("ftp://127.0.0.1/a.jpg", "InvalidURL"),
        ("not a url", "InvalidURL"),
        ("http://[::1/a.jpg", "InvalidURL"),
        ("http://127.0.0.1:99999/a.jpg", "InvalidURL"),
        ("http://a..b/a.jpg", "InvalidURL"),
        (f"http://{'a' * 70}/a.jpg", "InvalidURL"),
        ("{samples}/gen/portrait-1.jpg?status=500", "InvalidFile.DownloadFailed"),
        ("{samples}/gen/portrait-1.jpg?status=429", "InvalidFile.DownloadFailed"),
        ("http://127.0.0.1:1/a.jpg", "InvalidURL.ConnectionRefused"),
    ],
)
def test_an_image_that_can_not_be_fetched_has_the_documented_error(
    caller: Caller, url: str, code: str
) -> None:
    """Each kind of fetch failure has its own code, and none is billed."""
    response = caller.send(url.format(samples=caller.emulator.origin + "/samples"))
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert caller.emulator.invoice() == []


def test_an_image_that_takes_too_long_to_fetch_has_the_documented_error(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """The service gives up a fetch after its time, and bills nothing."""
    emulator = s2v_emulator_factory(EmulatorOptions(limit=None, fetch_timeout_s=0.5))
    response = Caller(emulator, http_client).send(f"{emulator.origin}/samples/gen/portrait-1.jpg?delay_s=60")
    assert (response.status_code, response.json()["code"]) == (400, "InvalidURL.Timeout")
    assert emulator.invoice() == []


@pytest.mark.parametrize(
    ("request_parts", "status", "code"),
    [
        ({"headers": {}}, 401, "InvalidApiKey"),
        ({"headers": {"Authorization": "Bearer"}}, 401, "InvalidApiKey"),
        ({"headers": {"Authorization": "Basic any"}}, 401, "InvalidApiKey"),
        ({"json": None, "content": b"{}"}, 400, "BadRequest.IllegalInput"),
        ({"json": ["a"]}, 400, "BadRequest.IllegalInput"),
        ({"json": {"input": {"image_url": "http://h/a"}}}, 400, "BadRequest.EmptyModel"),
        ({"json": {"model": "wan2.2-s2v-detect"}}, 400, "BadRequest.EmptyInput"),
        ({"json": {"model": "wan2.2-s2v-detect", "input": {}}}, 400, "BadRequest.EmptyInput"),
        ({"json": {"model": "wan2.2-s2v-detect", "input": {"image_url": 1}}}, 400, "BadRequest.IllegalInput"),
        ({"json": {"model": "wan9", "input": {"image_url": "http://h/a"}}}, 404, "ModelNotFound"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_else(
    caller: Caller, request_parts: dict[str, object], status: int, code: str
) -> None:
    """Key, body and model are checked first; the refusal is counted as one and not billed."""
    response = caller.send("http://unused/", **request_parts)
    assert (response.status_code, response.json()["code"]) == (status, code)
    calls = caller.emulator.calls()
    assert (calls["received"], calls["refused"], calls["admitted"], calls["billed"]) == (1, 1, 0, 0)


def test_with_a_key_of_its_own_the_emulator_takes_no_other(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """The option api_key makes every other key invalid."""
    caller = Caller(s2v_emulator_factory(EmulatorOptions(api_key="right", fetch_images=False)), http_client)
    assert caller.send("http://h/a", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert caller.send("http://h/a", headers={"Authorization": "Bearer right"}).status_code == 200


def test_the_sixth_call_of_a_second_is_throttled_and_free(
    s2v_emulator: Emulator, http_client: httpx.Client
) -> None:
    """By default five calls of any second get in; arrivals list them, by the service's clock."""
    caller = Caller(s2v_emulator, http_client)
    responses = [caller.send_sample("missing-000.jpg") for _ in range(8)]
    calls = s2v_emulator.calls()
    arrivals = [arrival["at_s"] for arrival in calls["arrivals"]]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] - arrivals[0] < 1, "the machine was too slow for this test to say anything"
    assert [arrival["admitted"] for arrival in calls["arrivals"]] == [True] * 5 + [False] * 3
    assert [response.status_code for response in responses] == [400] * 5 + [429] * 3
    assert responses[-1].json()["code"] == "Throttling.RateQuota"
    assert responses[-1].json()["message"] == "Requests rate limit exceeded, please try again later."
    assert rule(responses[-1]) == "window:sliding"
    assert (calls["received"], calls["admitted"], calls["throttled"], calls["billed"]) == (8, 5, 3, 0)


def test_refused_calls_do_not_use_up_the_window(s2v_emulator: Emulator, http_client: httpx.Client) -> None:
    """A wrong key does not count in the window."""
    caller = Caller(s2v_emulator, http_client)
    for _ in range(10):
        caller.send_sample(GOOD, headers={})
    assert caller.send_sample(GOOD).status_code == 200


def test_every_error_of_the_catalogue_can_be_had(caller: Caller) -> None:
    """A fault responds with exactly the status, code and message of its row, and is not billed."""
    numbered = list(enumerate(CATALOGUE.items()))
    caller.emulator.set_faults([f"{name}:match=/{number}.jpg" for number, (name, _) in numbered])
    for number, (name, known) in numbered:
        response = caller.send(f"http://h/{number}.jpg")
        said = response.json()
        assert (response.status_code, said["code"], said["message"]) == (
            known.status,
            known.code,
            known.message,
        )
        assert rule(response) == f"fault:{name}"
    assert caller.emulator.invoice() == []
    assert caller.emulator.calls()["by_code"]["Arrearage"] == 1


def test_retry_after_is_sent_only_by_option(caller: Caller) -> None:
    """The header carries the fault's seconds."""
    caller.emulator.set_faults(["Throttling:retry_after=7,times=1", "Throttling"])
    assert caller.send_sample(GOOD).headers["retry-after"] == "7"
    assert "retry-after" not in caller.send_sample(GOOD).headers


def test_the_invoice_is_the_same_as_json_and_as_csv(caller: Caller) -> None:
    """Both pages list every billed call, and reset clears them together with the counters."""
    for number in range(3):
        caller.send_sample(f"gen/portrait-{number}.jpg")
    text = caller.http.get(caller.emulator.origin + "/invoice.csv").text
    lines = [{**line, "micro_usd": int(line["micro_usd"])} for line in csv.DictReader(io.StringIO(text))]
    assert lines == caller.emulator.invoice()
    assert len(lines) == 3
    caller.emulator.reset()
    assert caller.emulator.invoice() == []
    assert caller.emulator.calls()["received"] == 0


def test_counts_add_up(caller: Caller) -> None:
    """Every call received is in the counters by status and by rule exactly once."""
    caller.emulator.set_faults(["drop:match=portrait-9"])
    for name in (GOOD, "gen/crowd-1.jpg", "missing-000.jpg", "gen/nobody-1.jpg"):
        caller.send_sample(name)
    with pytest.raises(httpx.RemoteProtocolError):
        caller.send_sample("gen/portrait-9.jpg")
    calls = caller.emulator.calls()
    assert calls["by_status"] == {"200": 2, "400": 2, "none": 1}
    assert sum(calls["by_rule"].values()) == calls["received"] == len(calls["arrivals"]) == 5
    assert calls["billed"] == len(caller.emulator.invoice()) == 3


def test_bad_faults_at_run_time_are_refused_and_change_nothing(caller: Caller) -> None:
    """The page responds with 400 and the reason, and the faults in force stay."""
    caller.emulator.set_faults(["Arrearage"])
    for body in ('["nonsense"]', '{"drop": 1}', "no json"):
        response = caller.http.put(caller.emulator.origin + "/faults", content=body)
        assert response.status_code == 400
    with pytest.raises(UsageError, match="no fault is called"):
        caller.emulator.set_faults(["nonsense"])
    assert caller.send_sample(GOOD).json()["code"] == "Arrearage"


def test_without_decoding_the_name_alone_decides_and_the_front_page_says_so(
    s2v_emulator_factory: EmulatorFactory, caller: Caller
) -> None:
    """Nothing is fetched when fetch_images is off, and both modes state their rule."""
    by_name = Caller(s2v_emulator_factory(EmulatorOptions(limit=None, fetch_images=False)), caller.http)
    assert by_name.send("http://127.0.0.1:1/nothing-there.jpg").status_code == 200
    assert by_name.send("ftp://h/a.jpg").json()["code"] == "InvalidURL"
    page = caller.http.get(by_name.emulator.origin + "/").text
    assert "NOT fetched" in page
    other = caller.http.get(caller.emulator.origin + "/").text
    assert "NOT fetched" not in other
    for text in (page, other):
        assert "does not detect people; the file name decides" in text
        assert "no account is charged" in text


def test_latency_delays_the_response_of_a_checked_call(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """A response takes at least the configured latency."""
    options = EmulatorOptions(fetch_images=False, latency_s=0.2, jitter_s=0.05)
    response = Caller(s2v_emulator_factory(options), http_client).send("http://h/a.jpg")
    assert timedelta(seconds=0.2) <= response.elapsed < timedelta(seconds=60)


def test_arrival_jitter_delays_a_call_before_the_window_sees_it(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """A call made now is counted up to so many seconds later, by a time that the seed repeats."""
    options = EmulatorOptions(fetch_images=False, limit=None, arrival_jitter_s=0.2, seed=3)
    caller = Caller(s2v_emulator_factory(options), http_client)
    sent_s = []
    for _ in range(5):
        sent_s.append(time.monotonic())
        caller.send("http://h/a.jpg")
    arrived_s = [call["at_s"] for call in caller.emulator.calls()["arrivals"]]
    late_s = [arrived - sent for arrived, sent in zip(arrived_s, sent_s, strict=True)]
    jitter = random.Random(3)  # noqa: S311
    for late in late_s:
        assert late >= jitter.uniform(0, 0.2)
