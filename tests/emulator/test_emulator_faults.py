"""Which call gets which fault, and how a fault is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.emulator.faults import TRANSPORT_FAULTS, Fault, FaultPlan, parse_fault
from s2v_tasks.errors import UsageError

# Source: vendor's error-code page, as of 2026-10.
DOCUMENTED = {
    400: """InvalidFile.NoHuman InvalidFile.MultiHuman InvalidFile.Content InvalidFile.BodyProportion
        InvalidFile.FacePose InvalidFile.FullFace InvalidFile.FrontBody InvalidFile.BodyPose
        InvalidFile.FullBody InvalidFile.Value InvalidFile.FaceNotMatch InvalidPerson
        InvalidImage.NoHumanFace InvalidURL InvalidFile.Size InvalidFile.ImageSize InvalidFile.AspectRatio
        InvalidFile.Format InvalidFile.Resolution InvalidFile.Openerror InvalidImage.ImageSize
        InvalidImage.FileFormat InvalidImageResolution InvalidImageFormat BadRequest.UnsupportedFileFormat
        BadRequest.TooLarge DataInspectionFailed data_inspection_failed IPInfringementSuspect
        InvalidParameter InvalidURL.Timeout InvalidURL.ConnectionRefused InvalidFile.DownloadFailed
        BadRequest.InputDownloadFailed InvalidParameter.DataInspection ClientDisconnect
        ServiceUnavailableError APIConnectionError Arrearage BadRequest.EmptyInput BadRequest.EmptyModel
        BadRequest.IllegalInput UnsupportedOperation""",
    401: "InvalidApiKey invalid_api_key",
    403: """AccessDenied AccessDenied.Unpurchased Model.AccessDenied Workspace.AccessDenied
        AllocationQuota.FreeTierOnly""",
    404: "ModelNotFound WorkSpaceNotFound",
    429: """Throttling Throttling.RateQuota limit_requests Throttling.BurstRate limit_burst_rate
        Throttling.AllocationQuota insufficient_quota CommodityNotPurchased PrepaidBillOverdue
        PostpaidBillOverdue""",
    500: "InternalError InternalError.Algo SystemError RequestTimeOut ResponseTimeout ModelServiceFailed",
    503: "ModelServingError ModelUnavailable",
}


@pytest.mark.parametrize("status", DOCUMENTED)
def test_every_documented_code_is_in_the_catalogue_with_its_status(status: int) -> None:
    """No documented error is missing, or has another status."""
    assert {code: CATALOGUE[code].status for code in DOCUMENTED[status].split()} == dict.fromkeys(
        DOCUMENTED[status].split(), status
    )


def test_a_variant_carries_the_code_before_the_slash() -> None:
    """The same code with another message is a name of its own."""
    variant = CATALOGUE["Throttling.AllocationQuota/free-quota"]
    assert variant.code == "Throttling.AllocationQuota"
    assert variant.message == "Free allocated quota exceeded."
    assert variant.message != CATALOGUE["Throttling.AllocationQuota"].message
    assert CATALOGUE["ModelServingError/500"].status == 500


def test_a_fault_is_read_with_all_its_options() -> None:
    """Every option of the text lands in the record."""
    spec = "InvalidURL.Timeout:match=*/slow/*,rate=0.5,first=3,times=2,retry_after=1.5"
    assert parse_fault(spec) == Fault("InvalidURL.Timeout", "*/slow/*", 0.5, 3, 2, 1.5)
    assert parse_fault("stall:delay_s=2") == Fault("stall", delay_s=2.0)
    assert parse_fault("drop") == Fault("drop")


@given(
    name=st.sampled_from([*TRANSPORT_FAULTS, *CATALOGUE]),
    match=st.none() | st.sampled_from(["*/slow/*", "x=1", "http://h:1/a"]),
    rate=st.floats(0, 1),
    times=st.none() | st.integers(0, 9),
    retry_after_s=st.none() | st.floats(0, 60),
)
def test_the_text_of_a_fault_reads_back_as_the_same_fault(
    name: str, match: str | None, rate: float, times: int | None, retry_after_s: float | None
) -> None:
    """A fault survives the way through its own text."""
    fault = Fault(name, match, rate, times=times, retry_after_s=retry_after_s)
    assert parse_fault(fault.spec) == fault


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Throttled", "drop, reset, truncate"),
        ("drop:speed=2", "match=..., rate=..."),
        ("drop:rate", "match=..., rate=..."),
        ("drop:rate=often", "takes a number"),
        ("drop:times=1.5", "takes a number"),
        ("drop:rate=1.5", "from 0 to 1"),
        ("drop:rate=nan", "from 0 to 1"),
        ("drop:first=-1", "not below 0"),
        ("drop:match=", "part of a URL"),
    ],
)
def test_a_bad_fault_is_refused_and_the_message_says_what_is_allowed(spec: str, message: str) -> None:
    """A misspelt fault never becomes a fault that does nothing."""
    with pytest.raises(UsageError, match=message):
        parse_fault(spec)


def hits(fault: Fault, calls: int, seed: int = 0) -> list[int]:
    plan = FaultPlan([fault], seed)
    return [n for n in range(calls) if plan.pick("http://h/a.jpg") is not None]


def test_first_skips_and_times_ends() -> None:
    """The first calls go well, then the given number fail, then all go well again."""
    assert hits(Fault("drop", first=2, times=3), 10) == [2, 3, 4]
    assert hits(Fault("drop", times=0), 10) == []


def test_rate_is_a_share_and_repeats_with_its_seed() -> None:
    """A tenth of the calls, the same ones for the same seed."""
    one = hits(Fault("drop", rate=0.1), 2000, seed=1)
    assert 150 < len(one) < 250
    assert hits(Fault("drop", rate=0.1), 2000, seed=1) == one
    assert hits(Fault("drop", rate=0.1), 2000, seed=2) != one
    assert hits(Fault("drop", rate=0.0), 100) == []


def test_match_is_a_glob_with_a_star_and_a_part_without() -> None:
    """Only URLs that match are counted and hit."""
    plan = FaultPlan([Fault("drop", match="*/slow/*", first=1), Fault("html", match="b.jpg?n=1")], 0)
    urls = ["http://h/b.jpg", "http://h/slow/a", "http://h/slow/b", "http://h/b.jpg?n=12"]
    picked = [plan.pick(url) for url in urls]
    assert [fault and fault.name for fault in picked] == [None, None, "drop", "html"]


def test_the_first_fault_that_is_due_takes_the_call() -> None:
    """One call gets one fault, in the order of the list."""
    plan = FaultPlan([Fault("drop", times=1), Fault("html", times=1)], 0)
    assert [getattr(plan.pick("u"), "name", None) for _ in range(3)] == ["drop", "html", None]
