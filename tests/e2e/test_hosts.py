"""What hosts send instead of images, as a run's verdicts, money, gate and summary show it."""

import asyncio
import io
from collections import Counter
from collections.abc import Callable

import polars as pl
import pytest
from PIL import Image
from s2v_tasks.flows.curate import curate
from workbench import Bench, Ran

from s2v_tasks import Advanced, Screening

LINKS, WALLS, OPT_OUTS = 20, 6, 2


def _portrait() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (480, 640), "teal").save(out, "JPEG")
    return out.getvalue()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """``/link/N`` redirects to one image, ``/wall/N`` is a page, ``/own/N`` is an image not for AI."""
    path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)[1]
    body, status, more = _portrait(), "200 OK", ""
    if path.startswith("/link/"):
        status, body = "302 Found", b""
        more = f"Location: /not-available.jpg?X-Amz-Signature={path[6:]}&size=640\r\n"
    elif path.startswith("/wall/"):
        body = b"<!doctype html><title>Are you a robot?</title>"
    elif path.startswith("/own/"):
        more = "X-Robots-Tag: noai, noimageai\r\n"
    writer.write(
        f"HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body)
    await writer.drain()
    writer.close()


async def test_links_to_one_image_cost_one_call_and_walls_close_the_gate(in_process: Bench) -> None:
    """Twenty links are one image and its duplicates; pages count as unreachable and their host is named.

    What its host does not want to be used for AI is not paid for. A later run pays nothing more.
    """

    async def ran(out: str) -> tuple[pl.DataFrame, str]:
        state = await curate(
            candidates,
            str(in_process.folder / out),
            1.0,
            screening=Screening(allow_private_hosts=True),
            advanced=Advanced(ledger=f"sqlite:///{in_process.folder}/ledger.sqlite3"),
            return_state=True,
        )
        (verdicts,) = (in_process.folder / out).glob("runs/*/verdicts.parquet")
        return pl.read_parquet(verdicts), state.message

    async with await asyncio.start_server(_serve, "127.0.0.1") as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        paths = [("link", LINKS), ("wall", WALLS), ("own", OPT_OUTS)]
        candidates = in_process.candidates(
            [f"{origin}/{name}/{n}" for name, many in paths for n in range(many)]
        )
        verdicts, message = await ran("first")
        assert Counter(verdicts.select("outcome", "reason").rows()) == {
            (verdicts["outcome"][0], verdicts["reason"][0]): 1,
            ("duplicate", "same_content"): LINKS - 1,
            ("screened_out", "web_page"): WALLS,
            ("screened_out", "opted_out"): OPT_OUTS,
        }
        assert verdicts["outcome"][0] in ("passed", "failed")
        assert verdicts["duplicate_of"].drop_nulls().unique().to_list() == [0]
        assert len(in_process.emulator.invoice()) == 1
        assert "unreachable" in message
        verdicts, _ = await ran("second")
        assert verdicts["from_ledger"][0]
        assert len(in_process.emulator.invoice()) == 1


@pytest.mark.parametrize("contact", ["a\nb: c", "me (you)", "caf\u00e9", "x" * 201])
def test_a_contact_that_no_header_can_hold_is_refused(
    in_process: Bench, command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, contact: str
) -> None:
    """One line that names the variable; nothing is written."""
    monkeypatch.setenv("S2V_CONTACT", contact)
    candidates = in_process.candidates(in_process.portraits(1))
    ran = command(*in_process.curating(candidates))
    assert ran.status == 2
    assert "S2V_CONTACT" in ran.err
    assert not in_process.out.exists()
