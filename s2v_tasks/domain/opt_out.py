"""Opt-out: the directives of ``X-Robots-Tag`` by which a host forbids the use of an image for AI. Pure."""

import re
from collections.abc import Iterable
from typing import Final

from s2v_tasks.domain.dead_links import GONE

OPTED_OUT: Final = "opted_out"
"""The host forbids the use for AI by ``X-Robots-Tag``: the image is never paid for, never published."""

USER_AGENT_TOKEN: Final = "s2v-tasks"  # noqa: S105 - a product's name
OPT_OUT: Final = frozenset({"noai", "noimageai"})
"""Directives of ``X-Robots-Tag`` that are obeyed; ``noindex`` and ``noimageindex`` concern search."""
_AGENT: Final = re.compile(r"[a-z0-9_.*-]+", re.ASCII)
_WITH_VALUE: Final = frozenset(
    {"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after", "indexifembedded"}
)
"""Directives that are followed by a colon, like names of agents. Source: Google's page on robots meta tags,
as of 2026-11."""


def opted_out(status: int, fields: Iterable[str]) -> bool:
    """Whether one of a response's ``X-Robots-Tag`` fields forbids the use of the image for AI.

    A directive after the name of another agent, up to the next name or the field's end, does not apply. A
    host may send the fields with every response: a dead link stays one.
    """
    return status not in GONE and any(map(_opts_out, fields))


def _opts_out(text: str) -> bool:
    applies = True
    for item in re.split("[,;]", text.lower()):
        name, colon, rest = item.partition(":")
        name, directive = name.strip(), item
        if colon and name not in _WITH_VALUE and _AGENT.fullmatch(name):
            applies, directive = name in ("*", USER_AGENT_TOKEN), rest
        if applies and directive.strip(" \t\"'") in OPT_OUT:
            return True
    return False
