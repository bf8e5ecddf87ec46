"""Error bodies: finds code and message in an error response, and normalizes codes. Pure.

The gateway has no single shape: ``{"code", "message"}``, ``{"error": {"code", "message", "type"}}``, the
same below ``output``, ``error_code``/``error_message``, ``msg``, ``Code``/``Message``. A message may be JSON
text, or begin with ``<400> InternalError.Algo.InvalidParameter: ``. Source: responses and clients in public,
2024-11 to 2026-11.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_TEXT: Final = 1000
"""Characters of a code or message that are kept."""
MAX_DEPTH: Final = 4
"""Levels of objects and of JSON text that are searched; real responses have two."""
_CODES: Final = ("code", "errorcode")
_MESSAGES: Final = ("message", "errormessage", "msg", "errormsg")
_INNER: Final = ("error", "output")

_ALGORITHM = re.compile(r"internal_?error[._]algo[._](?=.)", re.IGNORECASE)
_CODE_IN_MESSAGE = re.compile(
    r"\s*(?:<\d{3}>\s*(?P<code>[A-Za-z][\w.]*)|(?P<dotted>(?:[A-Z]\w*\.)+\w+))\s*:\s*(?P<message>.*)",
    re.DOTALL,
)
_ONE_WORD = re.compile(r"[A-Za-z][\w.]*")

URL_PATTERN: Final = re.compile(r"https?:\S+", re.IGNORECASE)
# Whatever the scheme and the escaping: what follows a question mark or a fragment sign, and a password.
_SECRET = re.compile(r"(?:\?|%3F|(?<=\S)#)\S+", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=/)[^\s/@]*:[^\s/@]*@")


@dataclass(frozen=True, slots=True)
class Reading:
    """A code and a message found in a body, unchanged; empty where missing."""

    code: str
    message: str


def normalize_code(code: str) -> str:
    """A code for comparison: no case, no ``_`` and ``.``, no leading ``InternalError.Algo.``."""
    return _ALGORITHM.sub("", code.strip(), count=1).casefold().replace("_", "").replace(".", "")


def json_object(body: bytes | str) -> dict[str, object]:
    """The JSON object that a body holds; empty if it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # also bytes that are no UTF-8
        return {}
    return document if isinstance(document, dict) else {}


def readings(document: Mapping[str, object], depth: int = MAX_DEPTH) -> list[Reading]:
    """Every code and message in a response's document, the most specific first.

    An object with only one of the two takes the other from its inner objects.
    """
    members = _members(document)
    inner: list[Reading] = []
    for name in _INNER:
        inner += _inside(members.get(name), depth)
    code = _code(members)
    message = next(iter(_texts(members, _MESSAGES)), "")
    if message.lstrip().startswith("{") and depth:
        inner = [*readings(json_object(message), depth - 1), *inner]
    elif match := _CODE_IN_MESSAGE.fullmatch(message):
        inner = [_reading(match["code"] or match["dotted"], match["message"]), *inner]
    if not code and not message:
        return inner
    nearest = inner[0] if inner else Reading("", "")
    own = _reading(code, message)
    return [*inner, Reading(own.code or nearest.code, own.message or nearest.message)]


def request_id(document: Mapping[str, object]) -> str | None:
    """The vendor's id of a call, at the top level or inside ``error``."""
    members = _members(document)
    error = members.get("error")
    inner = _members(error) if isinstance(error, dict) else {}
    return text(members.get("requestid")) or text(inner.get("requestid"))


def text(value: object) -> str | None:
    """A non-empty text, or None. Query strings and passwords of quoted URLs are removed: they are secrets.

    Lone surrogates and NUL, which no database stores, are replaced.
    """
    if not isinstance(value, str) or not value:
        return None
    value = value.encode(errors="replace").decode().replace("\0", "?")
    return _PASSWORD.sub("...@", _SECRET.sub("?...", value))[:MAX_TEXT]


def _members(document: Mapping[str, object]) -> dict[str, object]:
    """The members by normalized name; of two with the same name, the first that is not empty."""
    members: dict[str, object] = {}
    for name, value in document.items():
        if not members.get(normalize_code(name)):
            members[normalize_code(name)] = value
    return members


def _inside(value: object, depth: int) -> list[Reading]:
    if isinstance(value, dict) and depth:
        typed = _members(value)
        if not _code(typed) and isinstance(typed.get("type"), str):
            value = {**value, "code": typed["type"]}
        return readings(value, depth - 1)
    if isinstance(value, str) and value:
        return [_reading(value, "") if _ONE_WORD.fullmatch(value) else _reading("", value)]
    return []


def _code(members: Mapping[str, object]) -> str:
    """The code; a number only repeats the HTTP status, so it is none."""
    return next((code for code in _texts(members, _CODES) if not code.isdecimal()), "")


def _texts(members: Mapping[str, object], names: tuple[str, ...]) -> list[str]:
    values = (members.get(name) for name in names)
    return [value for value in values if isinstance(value, str) and value]


def _reading(code: str, message: str) -> Reading:
    return Reading(text(code) or "", text(message) or "")
