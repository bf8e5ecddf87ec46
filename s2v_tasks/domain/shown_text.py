"""Shown text: others' text as a person may see it, without secrets of URLs and without control characters."""

import re
from typing import Final

from s2v_tasks.domain.error_body import text

_AFTER_PATH: Final = re.compile(r"(?:\?|%3F|#).*", re.IGNORECASE | re.DOTALL)
_USER_INFO: Final = re.compile(r"(?<=//)[^/?#]*@")


def shown(value: object, *, is_url: bool = False) -> str:
    """A value of a candidate or a verdict in one line, for a terminal or a page; empty for None.

    The query string, the fragment and the user of a URL are replaced by ``...``: a signature is a secret.
    From the first URL on, nothing that follows its path is shown: where a URL ends, its writer decides.

    Args:
        value: Any cell of a frame; lists and structs are shown as Python writes them.
        is_url: It is a URL whatever its scheme.
    """
    if value is None:
        return ""
    written = f"{value:.6f}" if isinstance(value, float) else str(value)
    if not isinstance(value, bool | int | float):
        before, scheme, rest = ("", "", written) if is_url else written.partition("://")
        written = (text(before) or "") + scheme + _AFTER_PATH.sub("?...", rest)
        written = _USER_INFO.sub("...@", written)
    return "".join(one if one.isprintable() else _escaped(one) for one in written)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
