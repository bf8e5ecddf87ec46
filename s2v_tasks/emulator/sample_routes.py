"""Routes of the sample images, with byte ranges and the faults of real servers."""

import asyncio
import re
from collections import Counter
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from s2v_tasks.emulator.detector import FETCHER_USER_AGENT
from s2v_tasks.emulator.sample_images import SUBJECTS, image
from s2v_tasks.emulator.samples import SAMPLES, Manner, Sample

_FLAKY_FAILURES: Final = 1
_MADE_NAME: Final = re.compile(rf"({'|'.join(SUBJECTS)})-(\d{{1,9}})\.(jpg|png|bmp|webp)")
_MAX_MADE_SIDE_PX: Final = 8000


class SampleServer:
    """The routes below ``/samples/``.

    ``/samples/gen/<subject>-<n>.<jpg|png|bmp|webp>`` is drawn for any n, 480 x 640 pixels unless ``width``
    and ``height`` are given in the query; ``status=404`` responds with an error, ``delay_s=2`` waits.
    """

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self.routes = [
            Route("/samples/", self._index),
            Route("/samples/gen/{name}", self._made),
            Route("/samples/{name}", self._sample),
        ]

    def reset(self) -> None:
        """Let the flaky samples fail again."""
        self._requests.clear()

    async def _index(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return PlainTextResponse("".join(f"/samples/{name}\n" for name in SAMPLES))

    async def _made(self, request: Request) -> Response:
        name = _MADE_NAME.fullmatch(request.path_params["name"])
        try:
            width, height = (int(request.query_params.get(side, px)) for side, px in _MADE_SIDES)
            delay_s = float(request.query_params.get("delay_s", 0))
            status = int(request.query_params.get("status", 200))
        except ValueError:
            return PlainTextResponse("width, height, status and delay_s are numbers", 400)
        if name is None or not (0 < width <= _MAX_MADE_SIDE_PX and 0 < height <= _MAX_MADE_SIDE_PX):
            return PlainTextResponse("no such sample", 404)
        await asyncio.sleep(delay_s)
        if status != 200:
            return PlainTextResponse("as requested", status)
        subject, number, ending = name.groups()
        image_format = "jpeg" if ending == "jpg" else ending
        data = await asyncio.to_thread(image, subject, int(number), width, height, image_format)
        return _partial(request, data, f"image/{image_format}")

    async def _sample(self, request: Request) -> Response:
        sample = SAMPLES.get(request.path_params["name"])
        if sample is None:
            return PlainTextResponse("no such sample", 404)
        self._requests[sample.name] += 1
        refusal = self._refusal(sample, request)
        if refusal is not None:
            return refusal
        # Drawing a large image takes tens of milliseconds, which would delay concurrent calls.
        data = await asyncio.to_thread(sample.content)
        if sample.manner is Manner.NO_RANGE or not data:
            return Response(data, media_type=sample.content_type)
        return _partial(request, data, sample.content_type)

    def _refusal(self, sample: Sample, request: Request) -> Response | None:
        match sample.manner:
            case Manner.REDIRECT:
                return RedirectResponse(f"/samples/{sample.target}", 302)
            case Manner.STATUS:
                return Response(sample.literal, sample.status, media_type="text/html")
            case Manner.PROTECTED if request.headers.get("user-agent") != FETCHER_USER_AGENT:
                return PlainTextResponse("forbidden", 403)
            case Manner.FLAKY if self._requests[sample.name] <= _FLAKY_FAILURES:
                return PlainTextResponse("try again", 500)
            case _:
                return None


_MADE_SIDES: Final = (("width", "480"), ("height", "640"))
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Read a Range header: the first byte and the one after the last; None: send everything.

    One range only; others and malformed ones are ignored, as RFC 9110 allows.

    Raises:
        IndexError: The range lies outside the file's ``size`` bytes.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise IndexError(start)
    return start, stop


def _partial(request: Request, data: bytes, content_type: str) -> Response:
    size = len(data)
    headers = {"accept-ranges": "bytes"}
    try:
        wanted = byte_range(request.headers.get("range"), size)
    except IndexError:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    if wanted is None:
        return Response(data, headers=headers, media_type=content_type)
    start, stop = wanted
    headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(data[start:stop], 206, headers, content_type)
