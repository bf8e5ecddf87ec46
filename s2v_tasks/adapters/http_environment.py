"""The environment's variables for HTTP clients: proxies and certificates, checked before a client is made."""

import ipaddress
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from s2v_tasks.errors import UsageError

_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_NO_PROXY: Final = ("NO_PROXY", "no_proxy")


def proxy_variable() -> str | None:
    """The first variable that names a proxy for HTTP, unless ``NO_PROXY`` excludes every host."""
    if any(os.environ.get(name, "").strip() == "*" for name in _NO_PROXY):
        return None
    return next((name for name in _PROXIES if os.environ.get(name)), None)


def check_http_environment() -> None:
    """Check the variables that every HTTP client of the process reads; they are the user's, not a defect.

    Entries of ``NO_PROXY`` that the clients can't read, such as ``fd00::/8``, are left out: they would raise.

    Raises:
        UsageError: One can't work; names it.
    """
    for name in _NO_PROXY:
        if name in os.environ:
            entries = [entry.strip() for entry in os.environ[name].split(",")]
            os.environ[name] = ",".join(entry for entry in entries if entry and not _is_network_6(entry))
    for name in _PROXIES:
        if value := os.environ.get(name):
            _check_proxy(name, value)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (value := os.environ.get(name)) and not _is_certificate_path(name, value):
            raise UsageError(f"{name} names nothing that is there ({value}); fix it, or unset it")


def _is_certificate_path(name: str, value: str) -> bool:
    """Whether OpenSSL finds something there: a file, which may be a pipe, or one of several folders."""
    if name == "SSL_CERT_DIR":
        return any(Path(folder).exists() for folder in value.split(os.pathsep))
    return Path(value).exists() and not Path(value).is_dir()


def _is_network_6(entry: str) -> bool:
    if "/" not in entry or "://" in entry:
        return False
    try:
        return ipaddress.ip_network(entry, strict=False).version == 6
    except ValueError:
        return False


def _check_proxy(name: str, value: str) -> None:
    """Check that a client can be made for a proxy; its URL may hold a password and is not shown."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, _port = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise UsageError(
            f"{name} is no URL of a proxy, such as http://proxy.example:3128; fix it, or unset it"
        )
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError(
            f"{name} names a SOCKS proxy, which needs a package: pip install 'httpx[socks]' (or unset it)"
        )
