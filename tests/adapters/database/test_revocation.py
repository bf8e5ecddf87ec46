"""Revoking verdicts that were wrong: the command on a real ledger file, and what it must never do."""

import asyncio
import os
import pty
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import PASSED, PRICE, EngineHarness, JumpingClock, make_images

from s2v_tasks.cli.app import main
from s2v_tasks.domain.detect import DetectResponse, parse_response
from s2v_tasks.models import WAN22_S2V_DETECT, UniqueImage

# Literal rows as the version before wrote them for a request that no longer fitted: a code that says nothing,
# taken for an image's by a word of its message, and remembered.
WRONG = ("error", "image_refused", "InvalidParameter", "Field required: input.media", 400, "not_billed")
"""outcome, reason, code, message, http_status, billing"""


def response(status: int, body: str) -> DetectResponse:
    return parse_response(WAN22_S2V_DETECT, status, {}, body.encode())


NO_HUMAN = response(400, '{"code":"InvalidFile.NoHuman","message":"nobody","request_id":"r"}')


async def _curated(
    folder: Path, images: list[UniqueImage], script: Callable[[int, str], DetectResponse], run: str
) -> int:
    """One run over some images, to its end; the number of its calls."""
    harness = EngineHarness(folder, JumpingClock())
    async with harness.ledger:
        lease = await harness.lease(run)
        service = harness.scripted(script)
        await harness.engine(lease, service).check_images(images)
        await lease.close("published")
    return len(service.sent_s)


async def _shown_revoked(folder: Path, keys: list[str]) -> set[str]:
    harness = EngineHarness(folder, JumpingClock())
    async with harness.ledger:
        return await (await harness.lease("later")).revoked_keys(keys)


def curated(
    folder: Path, images: list[UniqueImage], script: Callable[[int, str], DetectResponse], run: str
) -> int:
    """The same in a loop of its own: the command runs in one, too."""
    return asyncio.run(_curated(folder, images, script, run))


def with_wrong_verdicts(folder: Path, images: list[UniqueImage]) -> None:
    """Add what the version before left behind: for each a free attempt, and a verdict about the image."""
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as db, db:
        for image in images:
            attempt = db.execute(
                "INSERT INTO attempts (service, account, model, image_key, host, run_id, budget, state,"
                " price_micro_usd, reserved_at, settled_at, request_id, http_status, code) VALUES"
                " ('test', 'default', ?, ?, 'h', 'old', 'run:old', 'not_billed', ?, 1, 2, 'r', 400, ?)",
                [WAN22_S2V_DETECT.model, image.image_key, PRICE, WRONG[2]],
            ).lastrowid
            db.execute(
                "INSERT INTO verdicts (image_key, model, service, attempt_id, run_id, outcome, reason, code,"
                " message, http_status, billing, checked_at)"
                " VALUES (?, ?, 'test', ?, 'old', ?, ?, ?, ?, ?, ?, 3)",
                [image.image_key, WAN22_S2V_DETECT.model, attempt, *WRONG],
            )


def rows(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as db:
        return db.execute(statement).fetchall()


@pytest.fixture
def revoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command in this process: its exit status and what it says."""

    def run(*options: str) -> tuple[int, str]:
        ledger = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
        monkeypatch.setattr(sys, "argv", ["s2v", "ledger", "revoke", "--ledger", ledger, *options])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, "".join(capfd.readouterr())

    return run


def test_a_ledger_with_wrong_verdicts_is_healed(
    tmp_path: Path, revoke: Callable[..., tuple[int, str]]
) -> None:
    """They are shown and revoked, and the next run bills each image once; charges stay as they were."""
    images = make_images(6)
    assert curated(tmp_path, images[:2], lambda n, url: PASSED, "first") == 2
    with_wrong_verdicts(tmp_path, images[2:])
    assert curated(tmp_path, images, lambda n, url: PASSED, "before") == 0
    attempts = rows(tmp_path, "SELECT * FROM attempts ORDER BY id")
    status, said = revoke("--code", "invalidparameter", "--why", "the request had changed", "--yes")
    assert status == 0
    assert "4 error image_refused (InvalidParameter)" in said
    assert "Field required: input.media" in said
    assert "4 verdicts revoked" in said
    assert rows(tmp_path, "SELECT * FROM attempts ORDER BY id") == attempts
    trace = rows(tmp_path, "SELECT why, reason, code, message, run_id FROM revoked_verdicts")
    assert trace == [("the request had changed", WRONG[1], WRONG[2], WRONG[3], "old")] * 4
    keys = [image.image_key for image in images]
    assert asyncio.run(_shown_revoked(tmp_path, keys)) == set(keys[2:])
    assert curated(tmp_path, images, lambda n, url: PASSED, "after") == 4
    assert rows(tmp_path, "SELECT count(*), sum(check_pass) FROM verdicts") == [(6, 6)]
    assert rows(tmp_path, "SELECT count(*) FROM attempts WHERE state = 'billed'") == [(6,)]


def test_a_billed_verdict_is_never_revoked(tmp_path: Path, revoke: Callable[..., tuple[int, str]]) -> None:
    """Its image could not be checked again without a second charge, and the command says so."""
    images = make_images(3)
    curated(tmp_path, images, lambda n, url: NO_HUMAN if n == 0 else PASSED, "first")
    status, said = revoke("--run", "first", "--yes")
    assert status == 0
    assert "2 are billed and stay" in said
    assert "1 verdicts revoked" in said
    status, said = revoke("--run", "first", "--yes")
    assert status == 2
    assert "nothing can be revoked: 2 are billed" in said
    assert rows(tmp_path, "SELECT count(*) FROM verdicts WHERE billing = 'billed'") == [(2,)]


def test_an_image_that_was_charged_before_a_free_verdict_keeps_it(
    tmp_path: Path, revoke: Callable[..., tuple[int, str]]
) -> None:
    """A lost response that turned out to be billed counts, whatever the verdict itself cost."""
    [image] = make_images(1)
    curated(tmp_path, [image], lambda n, url: NO_HUMAN, "first")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as db, db:
        db.execute(
            "INSERT INTO attempts (service, account, model, image_key, host, run_id, budget, state,"
            " price_micro_usd, reserved_at) SELECT service, account, model, image_key, host, run_id, budget,"
            " 'billed', price_micro_usd, reserved_at FROM attempts"
        )
    assert revoke("--key", image.image_key, "--yes")[0] == 2
    assert rows(tmp_path, "SELECT count(*) FROM verdicts") == [(1,)]


def test_criteria_narrow_the_selection_and_nothing_happens_without_a_yes(
    tmp_path: Path, revoke: Callable[..., tuple[int, str]]
) -> None:
    """By code, reason, run and key; at least one, and each given must match."""
    images = make_images(2)
    curated(tmp_path, images, lambda n, url: NO_HUMAN, "first")
    for options in ([], ["--reason", "image_refused"], ["--reason", "no_human", "--run", "other"]):
        assert revoke(*options, "--yes")[0] == 2
    status, said = revoke("--reason", "no_human")
    assert status == 2
    assert "--yes" in said
    assert rows(tmp_path, "SELECT count(*) FROM verdicts") == [(2,)]
    assert revoke("--reason", "no_human", "--key", images[0].image_key, "--yes")[0] == 0
    assert rows(tmp_path, "SELECT image_key FROM verdicts") == [(images[1].image_key,)]


@pytest.mark.parametrize(
    ("typed", "status", "left"), [("y", 0, 0), ("n", 2, 2), ("", 2, 2), ("maybe\ny", 0, 0)]
)
def test_in_a_terminal_a_person_confirms(
    tmp_path: Path,
    revoke: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    status: int,
    left: int,
) -> None:
    """After what will be revoked is shown; only a yes does it, and Enter alone is none."""
    curated(tmp_path, make_images(2), lambda n, url: NO_HUMAN, "first")
    person, terminal = pty.openpty()
    os.write(person, f"{typed}\n".encode())
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        came, said = revoke("--code", "InvalidFile.NoHuman")
    os.close(person)
    assert came == status
    assert said.index("2 failed no_human") < said.index("Revoke 2 verdicts?")
    assert ("2 verdicts revoked" in said, "nothing is revoked" in said) == (not left, bool(left))
    assert rows(tmp_path, "SELECT count(*) FROM verdicts") == [(left,)]
    assert rows(tmp_path, "SELECT count(*) FROM revoked_verdicts") == [(2 - left,)]
