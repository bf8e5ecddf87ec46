"""Revocation on SQLite and PostgreSQL: what each criterion selects, and that every charge stays."""

from typing import Any

import pytest

from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.revocation import Selection
from s2v_tasks.domain.detect import DetectResponse, parse_response
from s2v_tasks.domain.ledger import NotReserved, Reserved, Scope
from s2v_tasks.models import WAN22_S2V_DETECT

SCOPE = Scope("test", "default", WAN22_S2V_DETECT)


def response(status: int, body: str) -> DetectResponse:
    return parse_response(WAN22_S2V_DETECT, status, {}, body.encode())


PASSED = response(200, '{"output":{"check_pass":true},"request_id":"r"}')
NO_HUMAN = response(400, '{"code":"InvalidFile.NoHuman","message":"none","request_id":"r"}')
TOO_SMALL = response(400, '{"code":"InvalidFile.Size","message":"small","request_id":"r"}')
STORED = {"a": ("one", NO_HUMAN), "b": ("one", TOO_SMALL), "c": ("two", NO_HUMAN), "d": ("two", PASSED)}
"""Verdicts by the first letter of the image's key: the run that stored it, and the response."""


@pytest.fixture
async def filled(ledger: Ledger) -> Ledger:
    """A ledger with those verdicts, of two runs."""
    for letter, (run_id, response) in STORED.items():
        run = await ledger.open_run(run_id, SCOPE, f"run:{run_id}", 10, "retry")
        reserved = await run.reserve(letter * 32, "a.example", 1000.0)
        assert isinstance(reserved, Reserved)
        await run.settle(letter * 32, reserved.attempt_id, response)
        await run.close("published")
    return ledger


@pytest.mark.parametrize(
    ("selection", "revoked"),
    [
        (Selection(codes=["INVALIDFILE.NOHUMAN"]), "ac"),
        (Selection(codes=["InvalidFile.NoHuman", "InvalidFile.Size"]), "abc"),
        (Selection(reasons=["image_size"]), "b"),
        (Selection(run_ids=["one"]), "ab"),
        (Selection(run_ids=["two"]), "c"),
        (Selection(image_keys=["a" * 32, "d" * 32]), "a"),
        (Selection(codes=["InvalidFile.NoHuman"], run_ids=["two"]), "c"),
        (Selection(codes=["InvalidFile.NoHuman"], reasons=["image_size"]), ""),
        (Selection(image_keys=["d" * 32]), ""),
    ],
    ids=["code", "codes", "reason", "run", "partly billed", "keys", "code and run", "nothing", "billed"],
)  # fmt: skip
async def test_what_was_free_is_revoked_and_every_charge_stays(
    filled: Ledger, backend: Any, selection: Selection, revoked: str
) -> None:
    """Attempts and budgets stay, a trace is left, and of the images only the revoked may be sent again."""
    before = await backend.sql("SELECT * FROM attempts ORDER BY id")
    budgets = await backend.sql("SELECT * FROM budgets ORDER BY name")
    found = await filled.revocations.selected(selection)
    assert "".join(sorted(found.filter(~found["is_billed"])["image_key"].str.slice(0, 1))) == revoked
    assert await filled.revocations.revoke(selection, "it was wrong") == len(revoked)
    assert await backend.sql("SELECT * FROM attempts ORDER BY id") == before
    assert await backend.sql("SELECT * FROM budgets ORDER BY name") == budgets
    trace = await backend.sql("SELECT image_key, why, run_id FROM revoked_verdicts ORDER BY image_key")
    assert trace == [(letter * 32, "it was wrong", STORED[letter][0]) for letter in revoked]
    left = await backend.sql("SELECT image_key FROM verdicts ORDER BY image_key")
    assert "".join(key[0] for (key,) in left) == "".join(sorted(set(STORED) - set(revoked)))
    run = await filled.open_run("after", SCOPE, "run:after", 10, "retry")
    for letter in STORED:
        result = await run.reserve(letter * 32, "a.example", 1000.0)
        assert isinstance(result, Reserved if letter in revoked else NotReserved)
        if isinstance(result, Reserved):
            await run.settle(letter * 32, result.attempt_id, PASSED)
