"""The screen of an image with several URLs: which are fetched, and which result stands."""

import io

import pytest
from image_server import ReceivedRequest, Responder, file, local, responding, serving
from PIL import Image
from test_image_fetcher import NO_TRUST, OPTIONS

from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage


def png(width_px: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width_px, 600)).save(out, "PNG")
    return out.getvalue()


RESPONSES: dict[str, Responder] = {
    "good": file(png(512)),
    "small": file(png(20)),
    "expired": responding(403, b"<Error>expired</Error>"),
    "gone": responding(404),
    "wall": responding(200, b"<!doctype html><html><body>Are you a robot?</body></html>"),
    "text": responding(200, b'{"error": "link expired"}'),
    "optout": responding(200, png(512), x_robots_tag="noai"),
}


async def by_name(request: ReceivedRequest, writer: object) -> None:
    """Respond as the name in the signature says."""
    await RESPONSES[request.target.rpartition("=")[2].partition("-")[0]](request, writer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "reason", "width_px", "url_index", "fetched"),
    [
        (["good", "gone"], None, 512, None, ["good"]),
        (["expired", "good"], None, 512, 1, ["expired", "good"]),
        (["gone", "expired", "good"], None, 512, 2, ["gone", "expired", "good"]),
        (["wall", "text", "good"], None, 512, 2, ["wall", "text", "good"]),
        (["small", "good"], "too_small", 20, None, ["small"]),
        (["expired", "small", "good"], "too_small", 20, 1, ["expired", "small"]),
        (["optout", "good"], "opted_out", None, None, ["optout"]),
        (["gone", "expired-1", "expired-2"], None, None, 1, ["gone", "expired-1", "expired-2"]),
        (["expired-1", "gone", "expired-2"], None, None, None, ["expired-1", "gone", "expired-2"]),
        (["gone", "wall", "text"], "not_found", None, None, ["gone", "wall", "text"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
async def test_urls_are_fetched_until_one_leads_to_an_image(
    names: list[str], reason: str | None, width_px: int | None, url_index: int | None, fetched: list[str]
) -> None:
    """Newest first; without an image the newest that may be checked stands, else the newest's reason."""
    async with (
        serving(by_name) as server,
        ImageFetcher(OPTIONS, WAN22_S2V_DETECT, local, NO_TRUST) as fetcher,
    ):
        urls = [server.url(f"/p.jpg?X-Amz-Signature={name}") for name in names]
        single = UniqueImage("b" * 32, server.url("/q.jpg?X-Amz-Signature=good"))
        [seen, other] = await fetcher.screen([UniqueImage("a" * 32, urls[0], others=tuple(urls[1:])), single])
        assert (seen.reason, seen.width_px, seen.url_index) == (reason, width_px, url_index)
        assert (seen.image_key, other.width_px, other.url_index) == ("a" * 32, 512, None)
        targets = [request.target for request in server.requests if "p.jpg" in request.target]
        assert list(dict.fromkeys(target.rpartition("=")[2] for target in targets)) == fetched


async def test_a_host_that_throttles_gets_no_request_for_the_other_urls() -> None:
    """They are its too; the image is kept, for the service may be let in."""
    options = OPTIONS
    async with (
        serving(responding(429)) as server,
        ImageFetcher(options, WAN22_S2V_DETECT, local, NO_TRUST) as fetcher,
    ):
        urls = [server.url(f"/p.jpg?X-Amz-Signature={n}") for n in range(3)]
        [seen] = await fetcher.screen([UniqueImage("a" * 32, urls[0], others=tuple(urls[1:]))])
    assert seen == Screened("a" * 32)
    assert {request.target[-1] for request in server.requests} == {"0"}
