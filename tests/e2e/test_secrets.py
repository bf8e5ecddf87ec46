"""The API key and signed URLs stay where the user put them: no log, page, report or database holds them."""

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from workbench import Bench, Ran

SIGNATURE = f"TOPSECRET{secrets.token_hex(8)}"


@pytest.fixture
def key(bench: Bench) -> str:
    """A key that no other test used; the command finds it, and logs all that Prefect can."""
    key = f"sk-VERYSECRET{secrets.token_hex(8)}"
    bench.env |= {"DASHSCOPE_API_KEY": key, "PREFECT_LOGGING_LEVEL": "DEBUG"}
    return key


@pytest.fixture
def telltale() -> Iterator[str]:
    """A vendor that quotes whatever it was sent, and refuses the account at the fifth call."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            url, key = sent["input"]["image_url"], self.headers["authorization"]
            calls.append(url)
            said = f"Can't decode the image {url} <a href='{url}'> (sent with {key})"
            status, code = 400, "InvalidFile.Format"  # one that the ledger keeps, with its message
            if len(calls) >= 5:
                status, code = 401, "InvalidApiKey"
            body = {"code": code, "message": said, "request_id": f"request-{len(calls)}"}
            if len(calls) == 1:
                output = {"check_pass": False, "code": "InvalidFile.NoHuman", "message": said}
                status, body = 200, {"output": output, "request_id": "request-1"}
            self._respond(status, json.dumps(body).encode())

        def do_OPTIONS(self) -> None:
            self._respond(200, b"")

        def _respond(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def holding(folder: Path, secret: str) -> list[str]:
    """The files below a folder whose bytes, or whose parquet columns beside the URL's, hold a secret.

    A stopped run keeps its rows and their URLs, to go on with.
    """
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            own = frame.drop("image_url").write_json() if path.name != "rows.parquet" else ""
            content = (own + (frame.write_json() if secret.startswith("sk-") else "")).encode()
        elif path.parent.name == "placed" and not secret.startswith("sk-"):
            continue
        else:
            content = path.read_bytes()
        if secret.encode() in content:
            found.append(str(path))
    return found


def check_kept(ran: Ran, bench: Bench, key: str, prefect_home: Path) -> None:
    """Neither secret is in what was said, written, or sent to Prefect's server."""
    assert ran.manifest["run_id"].encode() in b"".join(
        p.read_bytes() for p in prefect_home.glob("prefect.db*")
    )
    for secret in (key, SIGNATURE):
        assert secret not in ran.out + ran.err
        assert holding(bench.out, secret) == []
        assert holding(prefect_home, secret) == []


def signed(bench: Bench, count: int) -> list[str]:
    query = "?x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential=c&x-oss-date=d&x-oss-signature="
    styles = [f"?sig={SIGNATURE}", f"{query}{SIGNATURE}", f"#sig={SIGNATURE}", f"?a=b&token={SIGNATURE}"]
    return [bench.url(number, query=styles[number % len(styles)]) for number in range(count)]


@pytest.mark.ci
def test_a_refused_run_logged_at_length_holds_no_secret(bench: Bench, key: str, session_dir: Path) -> None:
    """Screened, checked and refused in mid-run, with --debug and Prefect's log at its loudest."""
    bench.emulator.set_faults(["InvalidApiKey:first=8"])
    urls = [*signed(bench, 12), f"http://no-such-host.invalid/a.jpg?sig={SIGNATURE}"]
    urls += [f"http://127.0.0.1:1/a.jpg?sig={SIGNATURE}", f"ftp://u:{SIGNATURE}@127.0.0.1/a.jpg"]
    ran = bench.curate(bench.candidates(urls), "--debug")
    assert ran.status == 1, ran.err
    assert "DEBUG" in ran.out + ran.err
    assert set(ran.verdicts["outcome"]) == {"passed", "skipped", "screened_out"}
    check_kept(ran, bench, key, session_dir / "prefect")


@pytest.mark.ci
def test_a_vendor_that_quotes_everything_leaks_no_secret(
    bench: Bench, key: str, session_dir: Path, telltale: str
) -> None:
    """Messages about the image and about the account are kept without the URL's query and the key."""
    bench.env["DASHSCOPE_HTTP_BASE_URL"] = telltale
    candidates = bench.candidates(signed(bench, 12))
    ran = bench.curate(candidates, "--no-screen", "--debug")
    assert ran.status == 1, ran.err
    assert "Can't decode the image" in ran.err
    rows = ran.verdicts.filter(pl.col("message").is_not_null())
    assert rows.height == 4
    assert rows["message"].str.contains("Can't decode the image").all()
    with closing(sqlite3.connect(bench.out / "ledger.sqlite3")) as db, db:
        assert len(db.execute("SELECT message FROM verdicts").fetchall()) == 4
    check_kept(ran, bench, key, session_dir / "prefect")


def test_a_published_run_holds_no_secret(bench: Bench, key: str, session_dir: Path) -> None:
    """Data Docs, gate, pointer, manifest and ledger of a run that went well hold no URL's query."""
    urls = signed(bench, 8)
    ran = bench.curate(bench.candidates(urls), "--data-docs")
    assert ran.status == 0, ran.err
    assert ran.verdicts["image_url"].to_list() == urls
    assert (ran.run_dir / "data_docs" / "index.html").is_file()
    check_kept(ran, bench, key, session_dir / "prefect")
