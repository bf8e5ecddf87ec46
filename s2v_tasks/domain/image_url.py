"""Image URLs: why one is rejected, its normal form, and the key made of that.

Pure functions of a URL; the URL that is *sent* stays as given.
"""

import ipaddress
import re
from hashlib import blake2b
from typing import Final

import polars as pl

from s2v_tasks.domain.url_signatures import CHANGED, unsigned

MAX_URL_CHARACTERS: Final = 2048
REJECTION_REASONS: Final = frozenset(
    {"empty_url", "bad_characters", "url_too_long", "not_http", "user_info", "no_host", "malformed_url"}
)
"""Every reason for which a URL alone is rejected, for free."""
MAY_HAVE_FORMER_KEY: Final = rf"{CHANGED}|[^ -~]"
"""Pattern of the URLs whose former normal form may differ from today's; for polars."""

_KEY_OR_REASON: Final = pl.Struct({"image_key": pl.String, "reason": pl.String})
DEFAULT_PORT: Final = {"http": 80, "https": 443}
# Lone surrogates can't be encoded; they never come out of polars, but may out of other callers.
_BAD_CHARACTERS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# ASCII: without it "\u017f" (long s) counts as "s" and the Kelvin sign as "k".
_HTTP: Final = re.compile(r"https?:", re.IGNORECASE | re.ASCII)
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
# A label is 1 to 63 characters and one dot may stand at the end: others resolve nowhere.
_LABEL: Final = r"[^:\[\]\\.]{1,63}"
_AUTHORITY: Final = re.compile(
    rf"(?P<host>\[[^\]]*\]|(?:{_LABEL}\.)*{_LABEL}\.?)(?::(?P<port>[0-9]{{0,5}}))?"
)
# Stricter than a URL needs: what a malformed one holds, such as a password, must not be taken for a host.
_HOST: Final = r"^\s*[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#@%\\\[\]\s]+)(?::[0-9]*)?(?:[/?#]|$)"
_MAX_HOST_BYTES: Final = 253
# What most URLs are: their own normal form, valid without a closer check. For polars.
_PLAIN: Final = r"^https?://(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}/[!-~&&[^?#]]*$"


def url_rejection_reason(url: str | None) -> str | None:
    """Why a URL is rejected without a request, one of ``REJECTION_REASONS``; None if it is valid."""
    if not url:
        return "empty_url"
    if _BAD_CHARACTERS.search(url):
        return "bad_characters"
    if len(url) > MAX_URL_CHARACTERS:
        return "url_too_long"
    if not _HTTP.match(url):
        return "not_http"
    parts = _URL.fullmatch(url)
    authority = parts["authority"] if parts else ""
    if "@" in authority:
        return "user_info"
    if not authority or authority.startswith(":"):
        return "no_host"
    return None if _is_valid(authority) else "malformed_url"


def _is_valid(authority: str) -> bool:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or (parts["port"] and not 1 <= int(parts["port"]) <= 65535):
        return False
    host = parts["host"]
    if not host.startswith("["):
        return True
    try:
        return ipaddress.IPv6Address(host[1:-1]).scope_id is None
    except ValueError:
        return False


def normal_form(url: str, *, former: bool = False, signed: bool = False) -> str:
    """What all URLs of one image share; what is kept is kept in order, byte for byte.

    Scheme and host in lower case (ASCII letters only), without default port, fragment and signing parameters.
    A URL that ``url_rejection_reason`` rejects is returned as it is. ``former``: the normal form of the first
    ledgers. ``signed``: signing parameters are kept.
    """
    parts = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or authority is None:
        return url
    scheme, host, port = parts["scheme"].lower(), authority["host"], authority["port"]
    host = host.lower() if former or host.isascii() else _lower_ascii(host)
    query = parts["query"] or ""
    query = query if signed else unsigned(host, query, former=former)
    if port and int(port) != DEFAULT_PORT[scheme]:
        host = f"{host}:{int(port)}"
    return f"{scheme}://{host}{parts['path']}{query}"


def _lower_ascii(host: str) -> str:
    """Other letters may become equal only in lower case, and belong to different hosts."""
    return host.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def requested_form(url: str) -> str:
    """What all URLs share that make the same request: the normal form with the signature."""
    return normal_form(url, signed=True)


def image_key(url: str) -> str:
    """The key of an image: 128 bits of blake2b over the normal form of its URL, as 32 hex characters."""
    return _hash(normal_form(url))


def _hash(normal: str) -> str:
    return blake2b(normal.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def former_key(url: str) -> str | None:
    """The key under which an early ledger stores this URL; None if that is today's key."""
    former = normal_form(url, former=True)
    return None if former == normal_form(url) else _hash(former)


def keys_or_reasons(urls: pl.Series) -> pl.Series:
    """For each URL of a batch a struct of ``image_key`` and ``reason``, of which one is null."""
    plain = urls.str.contains(_PLAIN) & (urls.str.len_bytes() <= MAX_URL_CHARACTERS)
    keys: list[str | None] = []
    reasons: list[str | None] = []
    for url, is_plain in zip(urls, plain, strict=True):
        reason = None if is_plain else url_rejection_reason(url)
        reasons.append(reason)
        keys.append(None if reason else _hash(url) if is_plain else image_key(url))
    frame = pl.DataFrame({"image_key": keys, "reason": reasons}, schema=_KEY_OR_REASON.to_schema())
    return frame.to_struct(urls.name)


def host_of(urls: pl.Expr) -> pl.Expr:
    """The host of each URL, in lower case; null where a URL has none that is well formed."""
    host = urls.str.extract(_HOST).str.to_lowercase()
    return pl.when(host.str.len_bytes() <= _MAX_HOST_BYTES).then(host)


def with_keys_or_reasons(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with a column ``url``, and behind their columns ``image_key`` and ``reason``."""
    found = pl.col("url").map_batches(keys_or_reasons, return_dtype=_KEY_OR_REASON, is_elementwise=True)
    return rows.with_columns(found.alias("key_or_reason")).unnest("key_or_reason")
