"""Stage 1: which rows are pictures at all, and which of them are the same picture.

Rows get the normal form of their URL, a key made of it, and the row they repeat. LazyFrame to LazyFrame; the
URL that is *sent* stays as given.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import polars as pl

from s2v_tasks.errors import InputError
from s2v_tasks.models import Candidate, Screened

MAX_URL_CHARACTERS: Final = 2048
REFUSALS: Final = frozenset(
    {"empty_url", "bad_characters", "url_too_long", "not_http", "user_info", "no_host", "malformed_url"}
)
"""Every reason for which an address alone is refused, for free."""

SCHEMA: Final[dict[str, pl.DataType]] = {
    "row": pl.Int64(),
    "url": pl.String(),
    "image_key": pl.String(),
    "reason": pl.String(),
    "duplicate_of": pl.Int64(),
}
"""What ``identify`` returns, in order."""
PLACED_SCHEMA: Final = {name: dtype for name, dtype in SCHEMA.items() if name != "duplicate_of"}
"""What ``placed`` returns: all that can be said of a row without looking at others."""
PART_ROWS: Final = 100_000
"""Rows that are worked on at once, whatever their number."""

_PLACED: Final = pl.Struct({"image_key": pl.String, "reason": pl.String})
_SHOWN_COLUMNS: Final = 20
_DEFAULT_PORT: Final = {"http": 80, "https": 443}
# Lone surrogates can't be encoded; they never come out of polars, but may out of other callers.
_BAD_CHARACTERS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HTTP: Final = re.compile(r"https?:", re.IGNORECASE)
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL,
)
# A label is 1 to 63 characters and one dot may stand at the end: others resolve nowhere.
_LABEL: Final = r"[^:\[\]\\.]{1,63}"
_AUTHORITY: Final = re.compile(
    rf"(?P<host>\[[^\]]*\]|(?:{_LABEL}\.)*{_LABEL}\.?)(?::(?P<port>[0-9]{{0,5}}))?"
)
# What most addresses are: their own normal form, and in no need of a closer look. For polars.
_PLAIN: Final = r"^https?://(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}/[!-~&&[^?#]]*$"


@dataclass(frozen=True, slots=True)
class _Family:
    """How one vendor signs a URL: ``proof`` names that are all there when it did, and what it added.

    ``folded``: the vendor does not mind the case of a name; then all names here are lower case.
    """

    proof: frozenset[str]
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    folded: bool = False

    def added(self, name: str) -> bool:
        """Whether this parameter only signs, so that it says nothing about the picture."""
        return (name in self.names or name.startswith(self.prefixes)) and name not in self.kept


_OSS_KEPT: Final = frozenset({"x-oss-process"})  # resizes, crops, converts: another picture
# fmt: off
_SAS: Final = frozenset({
    "sig", "sv", "ss", "srt", "sr", "sp", "st", "se", "spr", "sip", "si", "sdd", "ses",
    "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid",
})
# fmt: on
FAMILIES: Final[dict[str, _Family]] = {
    "aws_v4": _Family(frozenset({"x-amz-signature"}), prefixes=("x-amz-",), folded=True),
    "aws_v2": _Family(
        frozenset({"AWSAccessKeyId", "Signature", "Expires"}),
        frozenset({"AWSAccessKeyId", "Signature", "Expires", "x-amz-security-token"}),
    ),
    "google_v4": _Family(frozenset({"x-goog-signature"}), prefixes=("x-goog-",), folded=True),
    "google_v2": _Family(
        frozenset({"GoogleAccessId", "Signature", "Expires"}),
        frozenset({"GoogleAccessId", "Signature", "Expires"}),
    ),
    "cloudfront": _Family(
        frozenset({"Key-Pair-Id", "Signature"}),
        frozenset({"Key-Pair-Id", "Signature", "Policy", "Expires", "Hash-Algorithm"}),
    ),
    "oss_v1": _Family(
        frozenset({"OSSAccessKeyId", "Signature", "Expires"}),
        frozenset({"OSSAccessKeyId", "Signature", "Expires", "security-token"}),
        prefixes=("x-oss-",),
        kept=_OSS_KEPT,
    ),
    "oss_v4": _Family(
        frozenset({"x-oss-signature"}),
        frozenset({"security-token"}),
        prefixes=("x-oss-",),
        kept=_OSS_KEPT,
        folded=True,
    ),
    "cos": _Family(
        frozenset({"q-signature"}),
        frozenset({"q-ak", "q-key-time", "q-header-list", "q-url-param-list", "x-cos-security-token"}),
        prefixes=("q-sign",),
        folded=True,
    ),
    "azure_sas": _Family(frozenset({"sig", "sv"}), _SAS, folded=True),
}
"""Signing parameters by family. The same short names mean other things elsewhere, hence the proof."""


def refusal(url: str | None) -> str | None:
    """Why this address can be refused without asking anyone, a slug of ``REFUSALS``; None: it can't."""
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
    return None if _sound(authority) else "malformed_url"


def _sound(authority: str) -> bool:
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


def normal_form(url: str) -> str:
    """Return what two URLs of the same picture share; what is kept is kept in order, byte for byte.

    Scheme and host in lower case, without default port, fragment and signing parameters. An address that
    ``refusal`` names comes back as it is.
    """
    parts = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or authority is None:
        return url
    scheme, host, port = parts["scheme"].lower(), authority["host"].lower(), authority["port"]
    if port and int(port) != _DEFAULT_PORT[scheme]:
        host = f"{host}:{int(port)}"
    return f"{scheme}://{host}{parts['path']}{_unsigned(parts['query'] or '')}"


def _unsigned(query: str) -> str:
    """Return the query, with its question mark, without what a family of signatures added to it."""
    parameters = [(item.partition("=")[0], item) for item in query[1:].split("&")]
    exact = {name for name, _ in parameters}
    lower = {name.lower() for name in exact}
    signed = [f for f in FAMILIES.values() if f.proof <= (lower if f.folded else exact)]
    if not signed:
        return query
    rest = [
        item
        for name, item in parameters
        if not any(family.added(name.lower() if family.folded else name) for family in signed)
    ]
    return "?" + "&".join(rest) if rest else ""


def image_key(url: str) -> str:
    """Return the picture's key: 128 bits of blake2b over the normal form, as 32 hex characters."""
    return _hash(normal_form(url))


def _hash(normal: str) -> str:
    return blake2b(normal.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _place(urls: pl.Series) -> pl.Series:
    """Key or reason for each URL of a batch."""
    plain = urls.str.contains(_PLAIN) & (urls.str.len_bytes() <= MAX_URL_CHARACTERS)
    keys: list[str | None] = []
    reasons: list[str | None] = []
    for url, is_plain in zip(urls, plain, strict=True):
        why = None if is_plain else refusal(url)
        reasons.append(why)
        keys.append(None if why else _hash(url) if is_plain else image_key(url))
    placed = pl.DataFrame({"image_key": keys, "reason": reasons}, schema=_PLACED.to_schema())
    return placed.to_struct(urls.name)


def identify(rows: pl.LazyFrame, url_column: str) -> pl.LazyFrame:
    """Give each row its number, its key and the row it repeats.

    The result has the columns of ``SCHEMA`` and every row, in order. ``image_key`` is null where ``reason``
    says why the address is refused; ``duplicate_of`` is the first row with the same key, null for that first
    row itself.
    """
    return compared(placed(rows, url_column))


def addresses(rows: pl.LazyFrame, url_column: str) -> pl.LazyFrame:
    """The URLs alone, as column ``url``; ``url_column`` may be a field of a struct."""
    return rows.select(_field(url_column, rows.collect_schema())[0].alias("url"))


def placed(rows: pl.LazyFrame, url_column: str, first: int = 0) -> pl.LazyFrame:
    """Give each row its number, from ``first``, and its key or the reason why its address is refused."""
    place = pl.col("url").map_batches(_place, return_dtype=_PLACED, is_elementwise=True)
    return (
        addresses(rows, url_column)
        .with_row_index("row", first)
        .select(pl.col("row").cast(pl.Int64), "url", place.alias("placed"))
        .unnest("placed")
    )


def compared(rows: pl.LazyFrame, key: str = "image_key") -> pl.LazyFrame:
    """Name the row that each of some placed rows repeats: the first with its ``key``."""
    first = pl.col("row").min().over(key)
    repeats = pl.col(key).is_not_null() & (first < pl.col("row"))
    return rows.with_columns(pl.when(repeats).then(first).alias("duplicate_of"))


def parts_for(rows: int, part_rows: int = PART_ROWS) -> int:
    """The number of parts that so many rows are worked through in."""
    return max(1, -(-rows // part_rows))


def part_of_key(parts: int, key: str = "image_key") -> pl.Expr:
    """The part of a picture, from 0; null without a key.

    Keys are hashes, so parts are about equal, unless an input repeats few pictures very often.
    """
    prefix = pl.col(key).str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64, strict=False)
    return prefix * parts // 2**32


def part_of(parts: int, key: str = "image_key") -> pl.Expr:
    """The part of a row, from 0: the same for all rows of a picture; needs ``key`` and ``row``."""
    return part_of_key(parts, key).fill_null(pl.col("row") % parts)


def fresh(identified: pl.LazyFrame) -> pl.LazyFrame:
    """Return the pictures to look at, each once, in order: columns ``image_key``, ``url``, ``row``."""
    wanted = pl.col("reason").is_null() & pl.col("duplicate_of").is_null()
    return identified.filter(wanted).select("image_key", "url", "row")


def records(pictures: pl.DataFrame) -> list[Candidate]:
    """The same as records, a ``Candidate`` each; columns ``image_key``, ``url`` and, if there, ``seen``."""
    seen = pictures["seen"] if "seen" in pictures.columns else [None] * pictures.height
    return [
        Candidate(key, url, before and Screened(*before.values()))
        for key, url, before in zip(pictures["image_key"], pictures["url"], seen, strict=True)
    ]


def selected(
    rows: pl.LazyFrame,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    stratify_by: str | None = None,
) -> pl.LazyFrame:
    """Return the rows that are part of the run, in order: the first ``limit``, and of these a sample.

    The same rows and ``seed`` draw the same sample, on any machine and with any version: it depends on row
    numbers alone. With ``stratify_by`` every value of that column, null too, gets its share of it.
    """
    rows = rows if limit is None else rows.head(limit)
    if sample is None:
        return rows
    strata = pl.lit(0) if stratify_by is None else pl.col(stratify_by)
    numbered = rows.with_row_index(_DRAWN)
    drawn = (
        numbered.select(_DRAWN, strata.alias("stratum"))
        .with_columns(_lot(pl.col(_DRAWN), seed).alias("lot"))
        # The n-th lot of a stratum of s rows stands at (n - 1/2) / s: the foremost hold every stratum evenly.
        .with_columns(((pl.col("lot").rank("ordinal") - 0.5) / pl.len()).over("stratum").alias("place"))
        .sort("place", "lot")
        .head(sample)
        .select(_DRAWN)
    )
    return numbered.join(drawn, on=_DRAWN, how="semi", maintain_order="left").drop(_DRAWN)


_DRAWN: Final = "__s2v_drawn"


def _lot(row: pl.Expr, seed: int) -> pl.Expr:
    """Return a number for each row as if drawn by lot, each once: SplitMix64.

    polars' own hash may change with its version; its unsigned integers wrap around, as this wants.
    """
    return _mixed(_mixed(_u64(seed)) + (row.cast(pl.UInt64) + 1) * _u64(0x9E3779B97F4A7C15))


def _mixed(z: pl.Expr) -> pl.Expr:
    z = (z ^ (z // 2**30)) * _u64(0xBF58476D1CE4E5B9)
    z = (z ^ (z // 2**27)) * _u64(0x94D049BB133111EB)
    return z ^ (z // 2**31)


def _u64(number: int) -> pl.Expr:
    return pl.lit(number, pl.UInt64)


def _field(name: str, schema: pl.Schema) -> tuple[pl.Expr, pl.DataType | None]:
    """Return what a name means, a column or ``column.field`` of a struct, and its type (None: not there)."""
    column, found = pl.col(name), schema.get(name)
    if found is not None:
        return column, found
    outer, *inner = name.split(".")
    column, found = pl.col(outer), schema.get(outer)
    for part in inner:
        fields: dict[str, Any] = dict(found) if isinstance(found, pl.Struct) else {}
        column, found = column.struct.field(part), fields.get(part)
    return column, found


def check_columns(
    schema: pl.Schema,
    url_column: str,
    added: Collection[str],
    segment_column: str | None = None,
    stratify_by: str | None = None,
) -> None:
    """Refuse an input that can't be worked on; ``added`` are the columns that a run puts behind its own.

    Raises:
        InputError: a column is missing, the URLs are no strings, or a name is taken.
    """
    dtype = _field(url_column, schema)[1]
    for wanted, there in (
        (url_column, dtype is not None),
        (segment_column, segment_column in schema),
        (stratify_by, stratify_by in schema),
    ):
        if wanted is not None and not there:
            names = ", ".join(list(schema)[:_SHOWN_COLUMNS]) or "none"
            more = f" and {len(schema) - _SHOWN_COLUMNS} more" if len(schema) > _SHOWN_COLUMNS else ""
            advice = "; name the one with the URLs (--url-column)" if wanted == url_column else ""
            raise InputError(f"the candidates have no column {wanted!r}; they have: {names}{more}{advice}")
    if dtype != pl.String:
        raise InputError(
            f"column {url_column!r} must hold strings, it holds {dtype};"
            " cast it, or name the one with the URLs (--url-column)"
        )
    taken = [name for name in schema if name in added]
    if taken:
        names = ", ".join(map(repr, taken))
        raise InputError(f"the candidates have column {names}, which a run adds itself: rename it")
