"""The HTTP service: the documented call, the invoice and counters beside it, and the sample pictures.

A call passes, in this order: key, body and model (refused, not counted by the window) - the rate window, on
its arrival time - the faults - the judge - the invoice - the answer. A billed call is in the invoice before
its answer is sent.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.emulator.faults import Fault, FaultPlan, parse_faults
from s2v_tasks.emulator.invoice import Calls, Invoice
from s2v_tasks.emulator.judge import NAME_RULES, Answer, Judge, error
from s2v_tasks.emulator.options import EmulatorOptions
from s2v_tasks.emulator.sample_routes import SampleServer
from s2v_tasks.emulator.windows import make_window
from s2v_tasks.emulator.wire import CutResponse, TruncatedResponse
from s2v_tasks.errors import UsageError
from s2v_tasks.models import WAN22_S2V_DETECT

BASE_PATH: Final = "/api/v1"
_SPOILERS: Final = {"nojson": b"<<< no json >>>", "no_check_pass": b""}
_GATEWAY_PAGE: Final = "<html><head><title>503 Service Unavailable</title></head><body>Busy.</body></html>"


def read_request(headers: Mapping[str, str], body: bytes, api_key: str | None) -> str | Answer:
    """Read a call: the image URL it asks about, or the error answer it gets before anything else."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or (api_key is not None and key != api_key):
        return error("InvalidApiKey", "api-key")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return error("BadRequest.IllegalInput", "body:content-type")
    try:
        asked = json.loads(body)
    except ValueError:
        return error("BadRequest.IllegalInput", "body:json")
    if not isinstance(asked, dict):
        return error("BadRequest.IllegalInput", "body:json")
    if not asked.get("model"):
        return error("BadRequest.EmptyModel", "body:model")
    if asked["model"] != WAN22_S2V_DETECT.model:
        return error("ModelNotFound", "model")
    given = asked.get("input")
    url = given.get("image_url") if isinstance(given, dict) else None
    if not url:
        return error("BadRequest.EmptyInput", "body:input")
    return url if isinstance(url, str) else error("BadRequest.IllegalInput", "body:image-url")


class Service:
    """The emulator's state and its ASGI app (``app``)."""

    def __init__(self, options: EmulatorOptions) -> None:
        self._options = options
        self._window = make_window(options.window, options.limit)
        self._faults = FaultPlan(parse_faults(options.faults), options.seed)
        self._jitter = random.Random(options.seed)  # noqa: S311 - repeatable latency, nothing secret
        self._lateness = random.Random(options.seed)  # noqa: S311 - the same
        self._invoice = Invoice(options.invoice_path)
        self._calls = Calls()
        self._samples = SampleServer()
        self._judge = Judge(fetch=options.judge_pictures, timeout_s=options.fetch_timeout_s)
        self.app = Starlette(
            routes=[
                Route(BASE_PATH + WAN22_S2V_DETECT.path, self._detect, methods=["POST"]),
                Route("/", self._front_page),
                Route("/invoice", self._show_invoice),
                Route("/invoice.csv", self._show_invoice_csv),
                Route("/calls", self._show_calls),
                Route("/reset", self._reset, methods=["POST"]),
                Route("/faults", self._put_faults, methods=["PUT"]),
                *self._samples.routes,
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - Starlette passes it
        yield
        await self._judge.aclose()
        self._invoice.close()

    async def _detect(self, request: Request) -> Response:
        request_id = str(uuid4())
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response()  # the caller left before the call had arrived; nobody reads this
        if self._options.arrival_jitter_s:
            await asyncio.sleep(self._lateness.uniform(0, self._options.arrival_jitter_s))
        # Nothing is awaited between the clock and the window, so calls are decided in order of arrival.
        arrived_s = time.monotonic()
        asked = read_request(request.headers, body, self._options.api_key)
        if isinstance(asked, Answer):
            self._calls.arrived(arrived_s, "refused")
            return self._respond(asked, request_id)
        if not self._window.admit(arrived_s):
            self._calls.arrived(arrived_s, "throttled")
            rule = f"window:{self._options.window}"
            return self._respond(error("Throttling.RateQuota", rule), request_id)
        self._calls.arrived(arrived_s, "admitted")
        fault = self._faults.pick(asked)
        if fault is not None:
            return await self._fail(fault, asked, request_id)
        return self._respond(await self._judge_and_bill(asked, request_id), request_id)

    async def _judge_and_bill(self, url: str, request_id: str) -> Answer:
        answer = await self._judge.judge(url)
        if answer.billed:
            self._invoice.bill(request_id, url)
        await asyncio.sleep(self._options.latency_s + self._jitter.uniform(0, self._options.jitter_s))
        return answer

    async def _fail(self, fault: Fault, url: str, request_id: str) -> Response:
        rule = f"fault:{fault.name}"
        if fault.name in CATALOGUE:
            return self._respond(error(fault.name, rule), request_id, fault)
        if fault.name == "reset":
            self._calls.answered(None, "", rule)
            return CutResponse(hard=True)
        if fault.name in {"html", "empty"}:
            self._calls.answered(503, "", rule)
            return HTMLResponse(
                _GATEWAY_PAGE if fault.name == "html" else b"", 503, _headers(request_id, rule, fault)
            )
        answer = await self._judge_and_bill(url, request_id)
        if fault.name == "drop":
            self._calls.answered(None, "", rule)
            return CutResponse(hard=False)
        if fault.name == "truncate":
            self._calls.answered(None, "", rule)
            whole = {**answer.body, "request_id": request_id}
            content = json.dumps(whole).encode()
            headers = _headers(request_id, rule, fault)
            return TruncatedResponse(content, answer.status, headers, "application/json")
        if fault.name == "stall":
            await asyncio.sleep(fault.delay_s)
        if fault.name in _SPOILERS and answer.billed:
            self._calls.answered(200, "", rule)
            content = _SPOILERS[fault.name] or json.dumps({"output": {}, "request_id": request_id}).encode()
            return Response(content, 200, _headers(request_id, rule, fault), "application/json")
        return self._respond(Answer(answer.status, answer.body, rule), request_id, fault)

    def _respond(self, answer: Answer, request_id: str, fault: Fault | None = None) -> Response:
        self._calls.answered(answer.status, answer.error_code, answer.rule)
        body = {**answer.body, "request_id": request_id}
        return JSONResponse(body, answer.status, _headers(request_id, answer.rule, fault))

    async def _front_page(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return PlainTextResponse(front_page(self._options))

    async def _show_invoice(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return JSONResponse(self._invoice.lines)

    async def _show_invoice_csv(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return PlainTextResponse(self._invoice.csv(), media_type="text/csv")

    async def _show_calls(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return JSONResponse(self._calls.report(len(self._invoice.lines)))

    async def _reset(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        self._invoice.clear()
        self._calls = Calls()
        self._samples.reset()
        return Response(status_code=204)

    async def _put_faults(self, request: Request) -> Response:
        try:
            specs = await request.json()
            if not isinstance(specs, list) or not all(isinstance(spec, str) for spec in specs):
                return PlainTextResponse("faults are a JSON list of texts", 400)
            self._faults = FaultPlan(parse_faults(specs), self._options.seed)
        except (ValueError, UsageError) as trouble:
            return PlainTextResponse(str(trouble), 400)
        return Response(status_code=204)


def _headers(request_id: str, rule: str, fault: Fault | None) -> dict[str, str]:
    headers = {"x-request-id": request_id, "x-emulator-rule": rule}
    if fault is not None and fault.retry_after_s is not None:
        headers["retry-after"] = f"{fault.retry_after_s:g}"
    return headers


def front_page(options: EmulatorOptions) -> str:
    """Say what this service is, how it decides and what it offers, as plain text."""
    limit = "no limit" if options.limit is None else f"{options.limit:g} calls a second ({options.window})"
    judged = (
        "Pictures are fetched; their format and size are judged for real."
        if options.judge_pictures
        else "Pictures are NOT fetched: format and size are not judged, only the file name is looked at."
    )
    return f"""An emulator of the {WAN22_S2V_DETECT.model} service. It is not the vendor's, and its invoice is
not real: nobody is charged. Made for loopback; it fetches any address that it is asked about.

  POST {BASE_PATH}{WAN22_S2V_DETECT.path}

Rate: {limit}.
{judged}
The emulator does not look for people; it goes by the file name: a picture is taken to hold
exactly one person facing the camera unless a word of the last path segment of its URL is one of
{", ".join(NAME_RULES)}.
The header x-emulator-rule of each answer says what decided.

  GET /invoice, /invoice.csv   every billed call
  GET /calls                   counters and arrival times
  POST /reset                  clear both
  PUT /faults                  a JSON list of faults, for example ["drop:rate=0.01"]
  GET /samples/                sample pictures
"""
