"""HTTP service of the emulator: the documented call, invoice and counters, and the sample images.

A call passes, in this order: key, body and model (refused, not counted by the window) - the rate window, by
its arrival time - the faults - the detector - the invoice - the response. A billed call is in the invoice
before its response is sent.
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
from s2v_tasks.emulator.detector import NAME_RULES, Detector, EmulatedResponse, error, nested
from s2v_tasks.emulator.faults import Fault, FaultPlan, parse_faults
from s2v_tasks.emulator.invoice import Calls, Invoice
from s2v_tasks.emulator.options import EmulatorOptions
from s2v_tasks.emulator.sample_routes import SampleServer
from s2v_tasks.emulator.windows import make_window
from s2v_tasks.emulator.wire import CutResponse, TruncatedResponse
from s2v_tasks.errors import UsageError
from s2v_tasks.models import WAN22_S2V_DETECT

BASE_PATH: Final = "/api/v1"
_SPOILERS: Final = {"nojson": b"<<< no json >>>", "no_check_pass": b""}
_GATEWAY_PAGE: Final = "<html><head><title>503 Service Unavailable</title></head><body>Busy.</body></html>"


def read_request(headers: Mapping[str, str], body: bytes, api_key: str | None) -> str | EmulatedResponse:
    """Read a call: its image URL, or the error response to an invalid call."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or (api_key is not None and key != api_key):
        return error("InvalidApiKey", "api-key")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return error("BadRequest.IllegalInput", "body:content-type")
    try:
        document = json.loads(body)
    except ValueError:
        return error("BadRequest.IllegalInput", "body:json")
    if not isinstance(document, dict):
        return error("BadRequest.IllegalInput", "body:json")
    if not document.get("model"):
        return error("BadRequest.EmptyModel", "body:model")
    if document["model"] != WAN22_S2V_DETECT.model:
        return error("ModelNotFound", "model")
    given = document.get("input")
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
        self._detector = Detector(fetch=options.fetch_images, timeout_s=options.fetch_timeout_s)
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
        await self._detector.aclose()
        self._invoice.close()

    async def _detect(self, request: Request) -> Response:
        request_id = str(uuid4())
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response()  # the client disconnected before the call had arrived
        if self._options.arrival_jitter_s:
            await asyncio.sleep(self._lateness.uniform(0, self._options.arrival_jitter_s))
        # No await between the clock and the window, so calls are admitted in order of arrival.
        arrived_s = time.monotonic()
        url = read_request(request.headers, body, self._options.api_key)
        if isinstance(url, EmulatedResponse):
            self._calls.arrived(arrived_s, "refused")
            return self._respond(url, request_id)
        if not self._window.admit(arrived_s):
            self._calls.arrived(arrived_s, "throttled")
            rule = f"window:{self._options.window}"
            return self._respond(error("Throttling.RateQuota", rule), request_id)
        self._calls.arrived(arrived_s, "admitted")
        fault = self._faults.pick(url)
        if fault is not None:
            return await self._fail(fault, url, request_id)
        return self._respond(await self._check_and_bill(url, request_id), request_id)

    async def _check_and_bill(self, url: str, request_id: str) -> EmulatedResponse:
        response = await self._detector.check(url)
        if response.billed:
            self._invoice.bill(request_id, url)
        await asyncio.sleep(self._options.latency_s + self._jitter.uniform(0, self._options.jitter_s))
        return response

    async def _fail(self, fault: Fault, url: str, request_id: str) -> Response:
        rule = f"fault:{fault.name}"
        if fault.name in CATALOGUE:
            response = error(fault.name, rule)
            return self._respond(nested(response) if fault.shape == "nested" else response, request_id, fault)
        if fault.name == "reset":
            self._calls.record_response(None, "", rule)
            return CutResponse(hard=True)
        if fault.name in {"html", "empty"}:
            self._calls.record_response(503, "", rule)
            return HTMLResponse(
                _GATEWAY_PAGE if fault.name == "html" else b"", 503, _headers(request_id, rule, fault)
            )
        if fault.name == "no_path":
            self._calls.record_response(404, "", rule)
            return Response(b"", 404, _headers(request_id, rule, fault))
        response = await self._check_and_bill(url, request_id)
        if fault.name == "drop":
            self._calls.record_response(None, "", rule)
            return CutResponse(hard=False)
        if fault.name == "truncate":
            self._calls.record_response(None, "", rule)
            whole = {**response.body, "request_id": request_id}
            content = json.dumps(whole).encode()
            headers = _headers(request_id, rule, fault)
            return TruncatedResponse(content, response.status, headers, "application/json")
        if fault.name == "stall":
            await asyncio.sleep(fault.delay_s)
        if fault.name in _SPOILERS and response.billed:
            self._calls.record_response(200, "", rule)
            content = _SPOILERS[fault.name] or json.dumps({"output": {}, "request_id": request_id}).encode()
            return Response(content, 200, _headers(request_id, rule, fault), "application/json")
        return self._respond(EmulatedResponse(response.status, response.body, rule), request_id, fault)

    def _respond(self, response: EmulatedResponse, request_id: str, fault: Fault | None = None) -> Response:
        self._calls.record_response(response.status, response.error_code, response.rule)
        body = {**response.body, "request_id": request_id}
        return JSONResponse(body, response.status, _headers(request_id, response.rule, fault))

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
                return PlainTextResponse("faults are a JSON list of strings", 400)
            self._faults = FaultPlan(parse_faults(specs), self._options.seed)
        except (ValueError, UsageError) as cause:
            return PlainTextResponse(str(cause), 400)
        return Response(status_code=204)


def _headers(request_id: str, rule: str, fault: Fault | None) -> dict[str, str]:
    headers = {"x-request-id": request_id, "x-emulator-rule": rule}
    if fault is not None and fault.retry_after_s is not None:
        headers["retry-after"] = f"{fault.retry_after_s:g}"
    return headers


def front_page(options: EmulatorOptions) -> str:
    """The description of this service, its rules and routes, as plain text."""
    limit = "no limit" if options.limit is None else f"{options.limit:g} calls a second ({options.window})"
    checks = (
        "Images are fetched; their format and size are checked for real."
        if options.fetch_images
        else "Images are NOT fetched: format and size are not checked, only the file name decides."
    )
    return f"""An emulator of the {WAN22_S2V_DETECT.model} service. It is not the vendor's, and its invoice is
not real: no account is charged. It is made for loopback: it fetches any URL.

  POST {BASE_PATH}{WAN22_S2V_DETECT.path}

Rate: {limit}.
{checks}
The emulator does not detect people; the file name decides: an image holds exactly one person facing the
camera unless a word of the last path segment of its URL is one of
{", ".join(NAME_RULES)}.
The header x-emulator-rule of each response names the rule that decided.

  GET /invoice, /invoice.csv   every billed call
  GET /calls                   counters and arrival times
  POST /reset                  clear both
  PUT /faults                  a JSON list of faults, for example ["drop:rate=0.01"]
  GET /samples/                sample images
"""
