"""Database URLs, the ledger's and a query's: what PostgreSQL's library (libpq) knows is translated or named.

A URL is read strictly: one that a raw ``@`` or ``/`` in a password splits wrongly is refused, and nothing of
it is shown, for any part may be the password.
"""

import os
import re
import ssl
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from s2v_tasks.adapters.database.sqlite_url import sqlite_url
from s2v_tasks.errors import UsageError

CONNECT_S: Final = 10.0
"""How long a connection may take, unless ``connect_timeout`` says otherwise."""
_ESCAPE: Final = (
    "in a user name or a password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23"
    " (nothing of it is shown here)"
)
_PARTS: Final = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<hosts>[^/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(?P<port>\d*))?")
_OTHER_NAMES: Final = {
    "ssl": "sslmode",
    "database": "dbname",
    "fallback_application_name": "application_name",
}
_FILES: Final = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl")
_DRIVERS: Final = frozenset(
    {*_FILES, "host", "port", "user", "password", "dbname", "sslmode", "sslpassword", "sslnegotiation",
     "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"}
)  # fmt: skip
"""What asyncpg reads itself."""
_SERVERS: Final = frozenset({"application_name", "options"})
"""What the server reads."""
_OURS: Final = frozenset({"connect_timeout", "channel_binding", "service"})
_NEEDLESS: Final = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
     "sslcompression", "sslsni", "pgbouncer", "connection_limit", "statement_cache_size",
     "prepared_statement_cache_size"}
)  # fmt: skip
"""What services and other drivers add and this program does anyway: every wait has its own end, no statement
is kept prepared."""
_HARMLESS: Final = {
    "gssencmode": {"disable", "prefer"},
    "client_encoding": {"utf8", "utf-8", "auto", "unicode"},
    "load_balance_hosts": {"disable"},
    "sslcertmode": {"allow"},
    "replication": {"false", "off", "no", "0"},
}
"""Values that ask for what is done anyway."""
_VARIABLES: Final = {
    "PGSERVICE": "service",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGCHANNELBINDING": "channel_binding",
}
"""Variables that libpq reads and asyncpg does not."""


def parse_url(text: str, name: str, error: type[UsageError] = UsageError) -> sa.URL:
    """A SQLAlchemy URL, of PostgreSQL with the installed driver and the options by libpq's names.

    Args:
        text: The URL; blanks and line ends around it are left out.
        name: Where it was given, for messages.
        error: What is raised.

    Raises:
        UsageError: It can't be read without doubt, or asks for something unknown.
    """
    scheme, separator, rest = text.strip().partition("://")
    backend, _, driver = scheme.lower().partition("+")
    if backend != "sqlite" and not _is_clear(rest):
        raise error(f"{name} can't be read: {_ESCAPE}")
    try:
        if separator and backend in ("postgres", "postgresql") and driver in ("", "asyncpg"):
            return _postgresql(rest)
        return sqlite_url(text.strip()) or sa.make_url(f"{scheme.lower()}{separator}{rest}")
    except UsageError as wrong:
        raise error(f"{name}: {wrong.message}") from None
    except (SQLAlchemyError, ValueError):
        what = "is no SQLAlchemy URL, such as postgresql://USER@HOST/DATABASE or sqlite:///PATH"
        raise error(f"{name} {what}; {_ESCAPE}") from None


def connect_args(url: sa.URL) -> dict[str, Any]:
    """What asyncpg is called with beside host, port, user, password and database of a URL of `parse_url`.

    Raises:
        UsageError: The environment or the service file asks for something unknown, or a file is missing.
    """
    options = {key: str(value) for key, value in url.query.items()}
    given = {option: os.environ[name] for name, option in _VARIABLES.items() if os.environ.get(name)}
    service = options.pop("service", given.pop("service", None))
    if service is not None:
        options = {**_service(service), **options}
    options = _checked({**given, **options})
    for name in _FILES:
        if name in options and options[name] != "system" and not Path(options[name]).expanduser().is_file():
            raise UsageError(f"the database's option {name} names no file: {options[name]}; fix the path")
    settings = {"application_name": "s2v-tasks"}
    settings |= {name: options.pop(name) for name in _SERVERS & options.keys()}
    seconds = float(options.pop("connect_timeout", 0))
    found: dict[str, Any] = {
        "server_settings": settings,
        "timeout": max(seconds, 2.0) if seconds > 0 else CONNECT_S,
    }
    if options.get("sslrootcert") == "system":  # libpq's word for the machine's certificates, always verified
        del options["sslrootcert"]
        found["ssl"] = ssl.create_default_context()
        if cert := options.get("sslcert"):
            found["ssl"].load_cert_chain(cert, options.get("sslkey"), options.get("sslpassword"))
    return {**found, "dsn": f"postgresql://?{urlencode(options)}" if options else "postgresql://"}


def _is_clear(rest: str) -> bool:
    """Whether the only ``@`` ends the user's part: else a password holds one, or what ends that part."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return rest.count("@") == authority.count("@") <= 1


def _postgresql(rest: str) -> sa.URL:
    parts = _PARTS.fullmatch(rest)
    hosts = [_HOST.fullmatch(one) for one in parts["hosts"].split(",")] if parts else []
    if parts is None or None in hosts:
        raise UsageError(f"its host or port can't be read; {_ESCAPE}")
    options: dict[str, str] = {}
    for item in (parts["query"] or "").split("&") if parts["query"] else ():
        option, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"its options are no NAME=VALUE; {_ESCAPE}")
        options[unquote(option)] = unquote(value)
    host, port = unquote(hosts[0]["host"]).strip("[]"), hosts[0]["port"]  # type: ignore[index]
    if len(hosts) > 1 or host.startswith("/"):
        options.setdefault("host", unquote(parts["hosts"]))
        host, port = "", ""
    return sa.URL.create(
        "postgresql+asyncpg",
        username=_decoded(parts["user"]),
        password=_decoded(parts["password"]),
        host=host or None,
        port=int(port) if port else None,
        database=_decoded(parts["database"]),
        query=_checked(options),
    )


def _decoded(part: str | None) -> str | None:
    return unquote(part) if part else None


def _checked(options: Mapping[str, str]) -> dict[str, str]:
    """The options by libpq's names, without those that need nothing.

    Raises:
        UsageError: One is unknown, or asks for what can't be done.
    """
    known: dict[str, str] = {}
    for given, value in options.items():
        name = _OTHER_NAMES.get(given, given)
        if name in _DRIVERS | _SERVERS | _OURS:
            known[name] = (
                {"true": "require", "false": "disable"}.get(value, value) if given == "ssl" else value
            )
        elif name not in _NEEDLESS and value.lower() not in _HARMLESS.get(name, set()):
            raise UsageError(f"the option {given} is unknown here, or has an unknown value; leave it out")
    if not re.fullmatch(r"\s*-?\d*\s*", known.get("connect_timeout", "")):
        raise UsageError("connect_timeout is no whole number of seconds; fix it")
    if not known.get("connect_timeout", "0").strip():
        del known["connect_timeout"]
    binding = known.pop("channel_binding", "prefer")
    verified = known.get("sslmode") == "verify-full" or known.get("sslrootcert") == "system"
    if binding == "require" and not verified:
        raise UsageError(
            "channel_binding=require can't be kept by this driver; replace it by sslmode=verify-full with"
            " sslrootcert=system, which proves the server too"
        )
    return known


def _service(name: str) -> dict[str, str]:
    """The options of a service, from the file of libpq."""
    paths = [Path.home() / ".pg_service.conf"]
    if folder := os.environ.get("PGSYSCONFDIR"):
        paths.append(Path(folder) / "pg_service.conf")
    if file := os.environ.get("PGSERVICEFILE"):
        paths = [Path(file)]
    services = ConfigParser(interpolation=None)
    try:
        services.read([path for path in reversed(paths) if path.is_file()])
        return dict(services[name])
    except (KeyError, ConfigError, OSError, UnicodeDecodeError):
        where = " or ".join(map(str, paths))
        raise UsageError(
            f"there is no database service {name!r} in {where}; fix it, or PGSERVICE and PGSERVICEFILE"
        ) from None
