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


def rule(answer: httpx.Response) -> str:
    return answer.headers["x-emulator-rule"]


def test_a_good_portrait_passes_and_is_billed_at_list_price(caller: Caller) -> None:
    """The passed answer has the documented shape, and one line of the invoice has its request id."""
    answer = caller.ask_sample(GOOD)
    request_id = answer.headers["x-request-id"]
    assert answer.status_code == 200
    assert answer.json() == {
        "output": {"check_pass": True, "humanoid": True},
        "usage": {"image_count": 1},
        "request_id": request_id,
    }
    assert UUID(request_id).version == 4
    assert rule(answer) == "one-person"
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
    answer = caller.ask_sample(f"gen/{word}-7.jpg")
    said = answer.json()["output"]
    assert answer.status_code == 200
    assert said["check_pass"] is False
    assert {key: said[key] for key in output} == output
    assert ("humanoid" in said) == ("humanoid" in output)
    assert rule(answer) == f"word:{word}"
    assert len(caller.emulator.invoice()) == 1


def test_a_failed_check_may_be_a_400_that_is_not_billed(caller: Caller) -> None:
    """One word stands for the verdict that comes as an error."""
    answer = caller.ask_sample("gen/nobody-7.jpg")
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidFile.NoHuman")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert caller.emulator.invoice() == []


def test_only_whole_words_of_the_last_segment_decide(shared_emulator: Emulator, caller: Caller) -> None:
    """A folder called crowd or a file called background does not fail a portrait."""
    with Emulator(EmulatorOptions(limit=None, judge_pictures=False)) as by_name:
        names = Caller(by_name, caller.http)
        assert rule(names.ask("http://h/crowd/background.jpg?scenery")) == "one-person"
        assert rule(names.ask("http://h/a/my_CROWD.jpg")) == "word:crowd"


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
    answer = caller.ask_sample(f"gen/portrait-2.{ending}?width={sides[0]}&height={sides[1]}")
    assert answer.status_code == status
    if status == 400:
        assert (answer.json()["code"], rule(answer)) == ("InvalidFile.Resolution", "resolution")


@pytest.mark.parametrize(
    "name", ["animation-000.gif", "scan-000.tif", "drawing-000.svg", "login-000.jpg", "empty-000.jpg"]
)
def test_what_is_no_picture_of_the_four_formats_is_a_format_error(caller: Caller, name: str) -> None:
    """The file's bytes decide, not its name or content type."""
    answer = caller.ask_sample(name)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidFile.Format")
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
        ("{samples}/gen/portrait-1.jpg?delay_s=3", "InvalidURL.Timeout"),
    ],
)
def test_a_picture_that_can_not_be_fetched_has_the_documented_error(
    caller: Caller, url: str, code: str
) -> None:
    """Each kind of fetch trouble has its own code, and none is billed."""
    answer = caller.ask(url.format(samples=caller.emulator.origin + "/samples"))
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert caller.emulator.invoice() == []


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
    """Key, body and model are looked at first; the refusal is counted as one and not billed."""
    answer = caller.ask("http://unused/", **request_parts)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    calls = caller.emulator.calls()
    assert (calls["received"], calls["refused"], calls["admitted"], calls["billed"]) == (1, 1, 0, 0)


def test_with_a_key_of_its_own_the_emulator_takes_no_other(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """The option api_key makes every other key invalid."""
    caller = Caller(s2v_emulator_factory(EmulatorOptions(api_key="right", judge_pictures=False)), http_client)
    assert caller.ask("http://h/a", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert caller.ask("http://h/a", headers={"Authorization": "Bearer right"}).status_code == 200


def test_the_sixth_call_of_a_second_is_throttled_and_free(
    s2v_emulator: Emulator, http_client: httpx.Client
) -> None:
    """By default five calls of any second get in; arrivals tell which, on the service's clock."""
    caller = Caller(s2v_emulator, http_client)
    answers = [caller.ask_sample("missing-000.jpg") for _ in range(8)]
    calls = s2v_emulator.calls()
    arrivals = [arrival["at_s"] for arrival in calls["arrivals"]]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] - arrivals[0] < 1, "the machine was too slow for this test to say anything"
    assert [arrival["admitted"] for arrival in calls["arrivals"]] == [True] * 5 + [False] * 3
    assert [answer.status_code for answer in answers] == [400] * 5 + [429] * 3
    assert answers[-1].json()["code"] == "Throttling.RateQuota"
    assert answers[-1].json()["message"] == "Requests rate limit exceeded, please try again later."
    assert rule(answers[-1]) == "window:sliding"
    assert (calls["received"], calls["admitted"], calls["throttled"], calls["billed"]) == (8, 5, 3, 0)


def test_refused_calls_do_not_use_up_the_window(s2v_emulator: Emulator, http_client: httpx.Client) -> None:
    """A wrong key costs its owner no place in the window."""
    caller = Caller(s2v_emulator, http_client)
    for _ in range(10):
        caller.ask_sample(GOOD, headers={})
    assert caller.ask_sample(GOOD).status_code == 200


def test_every_error_of_the_catalogue_can_be_had(caller: Caller) -> None:
    """A fault answers with exactly the status, code and message of its row, and is not billed."""
    numbered = list(enumerate(CATALOGUE.items()))
    caller.emulator.set_faults([f"{name}:match=/{number}.jpg" for number, (name, _) in numbered])
    for number, (name, known) in numbered:
        answer = caller.ask(f"http://h/{number}.jpg")
        said = answer.json()
        assert (answer.status_code, said["code"], said["message"]) == (
            known.status,
            known.code,
            known.message,
        )
        assert rule(answer) == f"fault:{name}"
    assert caller.emulator.invoice() == []
    assert caller.emulator.calls()["by_code"]["Arrearage"] == 1


def test_retry_after_is_sent_only_when_asked_for(caller: Caller) -> None:
    """The header carries the fault's seconds."""
    caller.emulator.set_faults(["Throttling:retry_after=7,times=1", "Throttling"])
    assert caller.ask_sample(GOOD).headers["retry-after"] == "7"
    assert "retry-after" not in caller.ask_sample(GOOD).headers


def test_the_invoice_is_the_same_as_json_and_as_csv(caller: Caller) -> None:
    """Both pages list every billed call, and reset clears them together with the counters."""
    for number in range(3):
        caller.ask_sample(f"gen/portrait-{number}.jpg")
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
        caller.ask_sample(name)
    with pytest.raises(httpx.RemoteProtocolError):
        caller.ask_sample("gen/portrait-9.jpg")
    calls = caller.emulator.calls()
    assert calls["by_status"] == {"200": 2, "400": 2, "none": 1}
    assert sum(calls["by_rule"].values()) == calls["received"] == len(calls["arrivals"]) == 5
    assert calls["billed"] == len(caller.emulator.invoice()) == 3


def test_bad_faults_at_run_time_are_refused_and_change_nothing(caller: Caller) -> None:
    """The page answers 400 with the reason, and the faults in force stay."""
    caller.emulator.set_faults(["Arrearage"])
    for body in ('["nonsense"]', '{"drop": 1}', "no json"):
        answer = caller.http.put(caller.emulator.origin + "/faults", content=body)
        assert answer.status_code == 400
    with pytest.raises(UsageError, match="no fault is called"):
        caller.emulator.set_faults(["nonsense"])
    assert caller.ask_sample(GOOD).json()["code"] == "Arrearage"


def test_without_judging_the_name_alone_decides_and_the_front_page_says_so(
    s2v_emulator_factory: EmulatorFactory, caller: Caller
) -> None:
    """Nothing is fetched when judge_pictures is off, and both modes state their rule."""
    by_name = Caller(s2v_emulator_factory(EmulatorOptions(limit=None, judge_pictures=False)), caller.http)
    assert by_name.ask("http://127.0.0.1:1/nothing-there.jpg").status_code == 200
    assert by_name.ask("ftp://h/a.jpg").json()["code"] == "InvalidURL"
    page = caller.http.get(by_name.emulator.origin + "/").text
    assert "NOT fetched" in page
    other = caller.http.get(caller.emulator.origin + "/").text
    assert "NOT fetched" not in other
    for text in (page, other):
        assert "does not look for people; it goes by the file name" in text
        assert "nobody is charged" in text


def test_latency_delays_the_answer_of_a_judged_call(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """An answer takes at least the latency it was told to take."""
    options = EmulatorOptions(judge_pictures=False, latency_s=0.2, jitter_s=0.05)
    answer = Caller(s2v_emulator_factory(options), http_client).ask("http://h/a.jpg")
    assert timedelta(seconds=0.2) <= answer.elapsed < timedelta(seconds=2)


def test_arrival_jitter_delays_a_call_before_the_window_sees_it(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client
) -> None:
    """A call made now is counted up to so many seconds later, by a time that the seed repeats."""
    options = EmulatorOptions(judge_pictures=False, limit=None, arrival_jitter_s=0.2, seed=3)
    caller = Caller(s2v_emulator_factory(options), http_client)
    asked_s = []
    for _ in range(5):
        asked_s.append(time.monotonic())
        caller.ask("http://h/a.jpg")
    arrived_s = [call["at_s"] for call in caller.emulator.calls()["arrivals"]]
    late_s = [arrived - asked for arrived, asked in zip(arrived_s, asked_s, strict=True)]
    jitter = random.Random(3)  # noqa: S311
    for late in late_s:
        assert late >= jitter.uniform(0, 0.2)
