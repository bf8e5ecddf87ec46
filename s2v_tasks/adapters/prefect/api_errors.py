"""Why a Prefect API can't be used, in words with a fix: the command's own server, and one of the user's."""

import os
import re
from typing import Final

import httpx

from s2v_tasks.adapters.library_errors import LIBRARY_ERRORS, error_line
from s2v_tasks.errors import PrefectUnavailable, S2VError, UsageError

OWN_SERVER: Final = (
    (r"Can't locate revision", "the database in {home} is of a newer Prefect; upgrade it, or set {other}"),
    (r"file is not a database|disk image is malformed", "prefect.db in {home} is no database; move it away"),
    (r"No space left|disk is full|Disk quota", "no room is left in {home}; make room, or set {other}"),
    (r"No locks available|\[Errno (?:37|95|38)\]", "{home} has no file locks; set {other}"),
    (r"[Rr]ead-only|readonly|Permission denied|unable to open data", "{home} can't be written; set {other}"),
    (r"NotADirectoryError|FileExistsError|Is a directory", "{home} is no folder; set {other}"),
    (r"database is locked", "prefect.db in {home} is locked by another process; end it, or set {other}"),
    (r"MemoryError|Cannot allocate memory|exit status -9", "it ran out of memory; give it 300 MB"),
    (r"Too many open files", "too many files are open; raise the limit (ulimit -n)"),
    (r"ModuleNotFoundError|ImportError", "its installation is broken ({last}); install s2v-tasks again"),
)  # fmt: skip
"""What its log says, and the words for it; the first that matches."""
_OTHER: Final = "PREFECT_HOME to another folder, or PREFECT_API_URL to a server of your own"


def own_server_ended(log: str, exit_status: int | None) -> PrefectUnavailable:
    """The error that the command's own server ended.

    Args:
        log: What it wrote to standard error.
        exit_status: Of its process.
    """
    said = [line.strip() for line in log.split("\n") if line.strip()]
    last = next((line for line in reversed(said) if not line.startswith("SystemExit")), "")[:300]
    text = f"{log}\nexit status {exit_status}"
    home = f"PREFECT_HOME ({os.environ.get('PREFECT_HOME') or '~/.prefect'})"
    for pattern, words in OWN_SERVER:
        if re.search(pattern, text):
            cause = words.format(home=home, other=_OTHER, last=last)
            return PrefectUnavailable(f"the command's own Prefect server ended: {cause}")
    return PrefectUnavailable(
        f"the command's own Prefect server ended ({last or f'exit status {exit_status}'});"
        " fix that, or name a server of your own with PREFECT_API_URL"
    )


_REFUSED: Final = re.compile(r"\b40[13] (Unauthorized|Forbidden)\b")
"""In an error's text, which also has the URL: a port may contain the digits."""


def check_api(url: str) -> None:
    """Ask the user's Prefect server once, with Prefect's own client, before anything begins.

    Args:
        url: Its API's URL.

    Raises:
        UsageError: It is no Prefect API, of another version, or refuses the credentials.
        PrefectUnavailable: It does not respond.
    """
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True, httpx_settings={"timeout": 15.0}) as client:
            client.raise_for_api_version_mismatch()
            client.read_flows(limit=1)
    except S2VError:
        raise
    except LIBRARY_ERRORS as error:
        raise _api_error(_shown(url), error) from None


def _api_error(shown: str, error: BaseException) -> S2VError:
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # "Failed to reach API"
        error = error.__cause__
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    text = str(error)
    if status in (401, 403) or _REFUSED.search(text):
        return UsageError(
            f"Prefect's server at {shown} refuses the credentials;"
            " fix PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        )
    if "incompatible versions" in text:
        return UsageError(
            f"Prefect's server at {shown} is of another version ({error_line(error)}); upgrade it"
        )
    if isinstance(error, httpx.TransportError) or (status is not None and status >= 500):
        cause = f"HTTP {status}" if status else error_line(error)
        return PrefectUnavailable(
            f"Prefect's server at {shown} does not respond ({cause}){_proxy(shown)};"
            " start it, fix PREFECT_API_URL, or unset it: the command then starts a server of its own"
        )
    return UsageError(
        f"{shown} is no Prefect API ({f'HTTP {status}' if status else error_line(error)});"
        " fix PREFECT_API_URL: it ends in /api"
    )


def _proxy(shown: str) -> str:
    scheme = shown.partition("://")[0].upper()
    names = (f"{scheme}_PROXY", f"{scheme.lower()}_proxy", "ALL_PROXY", "all_proxy")
    name = next((name for name in names if os.environ.get(name)), None)
    return f", through the proxy of {name}" if name else ""


def _shown(url: str) -> str:
    """A URL without a password or a query."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
