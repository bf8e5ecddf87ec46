"""The variables of HTTP clients are the user's: what can't work is named, and nothing is called a defect."""

import os
from pathlib import Path

import httpx
import pytest

from s2v_tasks.adapters.http_environment import check_http_environment, proxy_variable
from s2v_tasks.errors import UsageError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*os.environ,):
        if name.upper().endswith("_PROXY") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_networks_of_ipv6_in_no_proxy_are_left_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The clients raise at them; what they can read stays."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv(name, "localhost, 10.0.0.0/8,fd00::/8,::1,.svc,fe80::/10,")
    with pytest.raises(httpx.InvalidURL):
        httpx.Client()
    check_http_environment()
    assert os.environ[name] == "localhost,10.0.0.0/8,::1,.svc"
    httpx.Client().close()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks5://user:sesame@127.0.0.1:1080", "ALL_PROXY names a SOCKS proxy, which needs"),
        ("https_proxy", "socks5h://127.0.0.1:1080", "https_proxy names a SOCKS proxy, which needs"),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY is no URL of a proxy"),
        ("HTTP_PROXY", "http://h:port-sesame", "HTTP_PROXY is no URL of a proxy"),
        ("HTTP_PROXY", "ftp://sesame:21", "HTTP_PROXY is no URL of a proxy"),
        ("SSL_CERT_FILE", "/no/such.pem", "SSL_CERT_FILE names nothing that is there (/no/such.pem)"),
        ("SSL_CERT_DIR", "/no/such", "SSL_CERT_DIR names nothing"),
    ],
)
def test_a_variable_that_can_not_work_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """Its value is not shown where it may hold a password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        check_http_environment()
    assert str(raised.value).startswith(words)
    assert "sesame" not in str(raised.value)


def test_usual_values_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy without a scheme too, and a file of certificates that is there."""
    (tmp_path / "ca.pem").write_text("")
    for name, value in {
        "HTTP_PROXY": "proxy.example:3128",
        "HTTPS_PROXY": "http://u:p@proxy.example",
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        "SSL_CERT_DIR": f"/no/such{os.pathsep}{tmp_path}",
        "NO_PROXY": "*",
    }.items():
        monkeypatch.setenv(name, value)
    check_http_environment()
    assert proxy_variable() is None
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert proxy_variable() == "HTTPS_PROXY"
