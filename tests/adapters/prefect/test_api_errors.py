"""Why a Prefect API can't be used: the cause and the fix, for the command's own server and for a user's."""

import http.server
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from test_prefect_server import READY, prestarted

from s2v_tasks.adapters.prefect.api_errors import check_api, own_server_ended
from s2v_tasks.adapters.prefect.server import configured_api
from s2v_tasks.errors import PrefectUnavailable, UsageError


def of_a_newer_prefect(home: Path) -> None:
    with closing(sqlite3.connect(home / "prefect.db")) as db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        db.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        db.commit()


def damaged(home: Path) -> None:
    (home / "prefect.db").write_bytes(b"no database, " * 100)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_a_newer_prefect, "of a newer Prefect; upgrade it, or set PREFECT_HOME to another"),
        pytest.param(damaged, "is no database; move it away", marks=pytest.mark.ci),
    ],
)
def test_what_is_wrong_with_prefects_home_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """The real server's end, with its cause, and what to do."""
    spoil(tmp_path)
    (said,) = prestarted(tmp_path, READY)
    assert said.startswith("the_command's_own_Prefect_server_ended:")
    assert words in said.replace("_", " ").replace("PREFECT HOME", "PREFECT_HOME")


@pytest.mark.parametrize(
    ("log", "status", "words"),
    [
        ("OSError: [Errno 30] Read-only file system: '/x'", 1, "can't be written; set PREFECT_HOME"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", 1, "can't be written"),
        ("sqlite3.OperationalError: attempt to write a readonly database\nSystemExit: 3", 1, "be written"),
        (
            "sqlite3.OperationalError: database or disk is full\nSystemExit: 3",
            1,
            "no room is left in",
        ),
        ("OSError: [Errno 28] No space left on device", 1, "no room is left"),
        ("OSError: [Errno 37] No locks available", 1, "has no file locks"),
        ("NotADirectoryError: [Errno 20] Not a directory: '/x'", 1, "is no folder"),
        ("sqlite3.OperationalError: database is locked", 1, "locked by another process"),
        ("", -9, "out of memory"),
        ("OSError: [Errno 24] Too many open files", 1, "ulimit -n"),
        ("ModuleNotFoundError: No module named 'fastapi'", 1, "installation is broken (ModuleNotFoundError"),
        ("a word\nSystemExit: 3", 3, "ended (a word); fix that, or name a server of your own"),
        ("", 7, "ended (exit status 7)"),
    ],
)
def test_each_cause_has_its_words(log: str, status: int, words: str) -> None:
    """What the system and Prefect say of it, and the fix."""
    assert words in own_server_ended(log, status).message


def test_a_setting_that_cannot_be_read_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every verb that needs Prefect, the first thing it does there; a value may be a password."""
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "sesame")
    with pytest.raises(
        UsageError, match=r"settings can't be read \(request_timeout: .*fix the PREFECT_"
    ) as e:
        configured_api()
    assert "sesame" not in str(e.value)


@contextmanager
def serving(status: int, body: bytes, kind: str = "application/json") -> Iterator[str]:
    """A server on loopback that gives one response to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "error", "words"),
    [
        (401, b"{}", "application/json", UsageError, "refuses the credentials; fix PREFECT_API_AUTH_STRING"),
        (
            404,
            b"{}",
            "application/json",
            UsageError,
            "no Prefect API (HTTP 404); fix PREFECT_API_URL",
        ),
        (200, b"<html>", "text/html", UsageError, "is no Prefect API"),
        (200, json.dumps("2.20.1").encode(), "application/json", UsageError, "is of another version"),
        (500, b"{}", "application/json", PrefectUnavailable, "does not respond (HTTP 500)"),
    ],
)
def test_a_users_server_that_can_not_be_used_is_named_with_its_cause(
    status: int, body: bytes, kind: str, error: type[Exception], words: str
) -> None:
    """A wrong password, path, page or version is the user's to fix; nothing of it is a defect."""
    with serving(status, body, kind) as url, temporary_api(url), pytest.raises(error) as raised:
        check_api(url.replace("//", "//user:sesame@"))
    assert words in str(raised.value)
    assert "sesame" not in str(raised.value)


def test_digits_in_a_servers_url_are_no_status() -> None:
    """An error's text has the URL: a path, or a port, that holds 403 does not refuse credentials."""
    with serving(500, b"{}") as url, temporary_api(f"{url}/403"), pytest.raises(PrefectUnavailable):
        check_api(f"{url}/403")


def test_a_users_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the proxy that the request would take, where there is one."""
    with temporary_api("http://127.0.0.1:9/api"):
        with pytest.raises(PrefectUnavailable, match=r"http://127.0.0.1:9/api does not respond \(Conn"):
            check_api("http://127.0.0.1:9/api")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with pytest.raises(PrefectUnavailable, match="through the proxy of HTTP_PROXY; start it, fix"):
            check_api("http://127.0.0.1:9/api")


@contextmanager
def temporary_api(url: str) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
