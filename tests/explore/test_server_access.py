"""Tests of who may see the page, asked of a running server."""

import base64
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from sits_keras.errors import ConfigError
from sits_keras.explore import server
from sits_keras.explore.server import (
    allowed_hosts,
    check_address,
    find_free_port,
    has_browser,
    is_loopback,
    redirect_file,
)

HOSTS = ["127.0.0.1", "0.0.0.0"]
PATHS = [
    "/",
    "/metadata",
    "/autoload.js?bokeh-autoload-element=1",
    "/export/a/b",
    "/ws",
]

pytestmark = pytest.mark.integration


def open_websocket(address, page, query="", **headers):
    """Opens the page's websocket as a browser does; the status where it is refused, else 101."""
    session = re.search(r'"token":"([^"]+)"', page.decode())[1]
    parts = urlsplit(address)
    request = HTTPRequest(
        f"ws://127.0.0.1:{parts.port}/ws{query}",
        headers={"Host": parts.netloc, "Sec-WebSocket-Protocol": f"bokeh, {session}", **headers},
    )

    async def connect():
        connection = await websocket_connect(request)
        connection.close()
        return 101

    try:
        return IOLoop(make_current=False).run_sync(connect, timeout=30)
    except HTTPClientError as error:
        return error.code


@pytest.mark.parametrize("host", HOSTS)
def test_request_without_token_is_refused(host, served, explore, write, ask, tmp_path, monkeypatch):
    monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", "*")
    with served(explore(write(tmp_path / "a.tif")), host=host) as running:
        address = running.address
        token = urlsplit(address).query.removeprefix("token=")
        assert len(token) >= 43
        cookie = f"sits_keras_explore_{urlsplit(address).port}="
        for path in PATHS:
            joint = "&" if "?" in path else "?"
            for wrong in ("", "guess", token[:-1], token + "a", token.swapcase(), "%C3%A9"):
                assert ask(address, f"{path}{joint}token={wrong}").status == 403
                assert ask(address, path, Cookie=cookie + wrong).status == 403
            assert ask(address, path).status == 403
            assert ask(address, path, Cookie=f"other={token}").status == 403
            assert ask(address, path, Authorization=f"token {token}").status == 403


@pytest.mark.parametrize("host", HOSTS)
def test_websocket_and_export_answer_only_to_the_client_with_the_token(
    host, served, explore, write, ask, log_in, tmp_path, monkeypatch
):
    monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", "*")
    with served(explore(write(tmp_path / "a.tif")), host=host) as running:
        address = running.address
        cookie = log_in(address)
        page = ask(address, Cookie=cookie)
        assert page.status == 200
        own = f"http://{urlsplit(address).netloc}"
        wrong = cookie[:-1] + ("a" if cookie[-1] != "a" else "b")
        assert open_websocket(address, page.body, Origin=own, Cookie=cookie) == 101
        assert open_websocket(address, page.body, Origin=own) == 403
        assert open_websocket(address, page.body, Origin=own, Cookie=wrong) == 403
        assert open_websocket(address, page.body, "?token=guess", Origin=own) == 403
        query = f"?{urlsplit(address).query}"
        assert open_websocket(address, page.body, query, Origin=own) == 101
        assert ask(address, "/export/a/b", Cookie=cookie).status == 404
        assert ask(address, "/export/a/b", Cookie=wrong).status == 403


@pytest.mark.parametrize("host", HOSTS)
def test_request_for_another_host_name_is_refused_with_the_token(
    host, served, explore, write, ask, log_in, tmp_path
):
    explorer = explore(write(tmp_path / "a.tif"))
    with served(explorer, host=host, origins=["proxy:80"]) as running:
        address = running.address
        port, cookie = urlsplit(address).port, log_in(address)
        page = ask(address, Cookie=cookie)
        for known in (f"localhost:{port}", f"LOCALHOST:{port}", "proxy"):
            assert ask(address, Host=known, Cookie=cookie).status == 200
        for unknown in ("evil.example", f"evil.example:{port}", "localhost", "127.0.0.1:1"):
            assert ask(address, Host=unknown, Cookie=cookie).status == 403
            assert ask(address, "/export/a/b", Host=unknown, Cookie=cookie).status == 403
        own, other = f"http://{urlsplit(address).netloc}", "http://evil.example"
        assert open_websocket(address, page.body, Origin=other, Cookie=cookie) == 403
        assert (
            open_websocket(address, page.body, Origin=own, Cookie=cookie, Host="evil.example")
            == 403
        )


def test_token_is_absent_from_address_page_and_log(
    served, explore, write, ask, log_in, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    with served(explore(write(tmp_path / "a.tif"))) as running:
        address = running.address
        query = urlsplit(address).query
        token = query.removeprefix("token=")
        for name in ("bokeh", "tornado", "tornado.access"):  # as verbose as they can be
            logging.getLogger(name).setLevel(logging.DEBUG)
        answer = ask(address, f"/?{query}")
        assert answer.status == 302
        assert answer.headers["Location"] == "/"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        flags = answer.headers["Set-Cookie"].split("; ")[1:]
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(flags)
        cookie = log_in(address)
        page = ask(address, Cookie=cookie, Referer=address)
        assert ask(address, "/export/a/b", Cookie=cookie).status == 404
        for name in ("bokeh", "tornado"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("tornado.access").setLevel(logging.NOTSET)
    assert token.encode() not in page.body
    session = re.search(r'"token":"([^".]+)', page.body.decode())[1]
    # The page holds a token of Bokeh's, which tells its own script of the request.
    told = base64.urlsafe_b64decode(session + "=" * (-len(session) % 4))
    assert b"session_id" in told
    assert token.encode() not in told
    out, err = capfd.readouterr()
    assert token not in caplog.text + out + err


def test_token_comparison_uses_compare_digest(served, explore, write, ask, tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(
        server.hmac, "compare_digest", lambda one, other: compared.append((one, other))
    )
    with served(explore(write(tmp_path / "a.tif"))) as running:
        token = urlsplit(running.address).query.removeprefix("token=")
        assert ask(running.address, "/?token=guess").status == 403
    assert compared == [(b"guess", token.encode())]


def test_two_servers_have_different_tokens_and_cookies(
    served, explore, write, ask, log_in, tmp_path
):
    explorer = explore(write(tmp_path / "a.tif"))
    with served(explorer) as one, served(explorer) as other:
        assert urlsplit(one.address).query != urlsplit(other.address).query
        first, second = (log_in(running.address) for running in (one, other))
        assert first.split("=")[0] != second.split("=")[0]
        both = f"{first}; {second}"
        for running in (one, other):
            assert ask(running.address, Cookie=both).status == 200
        assert ask(one.address, Cookie=second).status == 403


def test_check_address_needs_no_tensorflow():
    """The command line checks an address before TensorFlow is loaded, quietly."""
    program = "import sys, sits_keras.explore.server; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


# Opening the browser


def test_redirect_file_is_readable_by_its_owner_alone_and_removed():
    with redirect_file("http://127.0.0.1:5006/?token=a&b=<c>") as file:
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_text()
        assert 'content="0; url=http://127.0.0.1:5006/?token=a&amp;b=&lt;c&gt;"' in text
    assert not file.exists()


# A page that does nothing, opened by the browser that BROWSER names.
SERVE = """
from sits_keras.explore import server
from sits_keras.explore.views import page
class Explorer:
    def stop(self): pass
page.add_page = lambda *arguments: None
running = server.start(Explorer(), host="127.0.0.1", port=0)
print(running.address, flush=True)
server.serve(running, open_browser=True)
"""


def test_browser_arguments_do_not_contain_token(tmp_path, ask):
    """The browser runs until it is closed, as one in a terminal does: the page answers beside."""
    log, script = tmp_path / "arguments", tmp_path / "browser"
    closed = tmp_path / "closed"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {log}.new\nmv {log}.new {log}\n'
        f"while [ ! -e {closed} ]; do sleep 0.1; done\n"
    )
    script.chmod(0o700)
    environment = {**server.os.environ, "BROWSER": str(script), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        address = process.stdout.readline().strip()
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (argument,) = log.read_text().split()
        token = urlsplit(address).query.removeprefix("token=")
        assert len(token) >= 43
        assert token not in argument
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_text()
        file = tmp_path / argument.rsplit("/", 1)[1]
        assert argument == file.as_uri()
        assert token in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
        assert ask(address).status == 403
        closed.touch()
        process.send_signal(server.signal.SIGTERM)
        assert process.wait(60) == 0
        assert not file.exists()
    finally:
        closed.touch()
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"BROWSER": "w3m"}, True),
    ],
)
def test_has_browser_on_linux_needs_a_display_or_browser(variables, expected, monkeypatch):
    monkeypatch.setattr(server.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_browser() is expected


def test_has_browser_elsewhere_is_true(monkeypatch):
    monkeypatch.setattr(server.sys, "platform", "darwin")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert has_browser()


# Addresses


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("example.org", False),
    ],
)
def test_is_loopback_of_names_and_addresses(host, expected):
    assert is_loopback(host) is expected


def test_allowed_hosts_are_this_machines_names_and_those_given():
    assert allowed_hosts("127.0.0.1", 80, ["Proxy", "other:8080"]) == [
        "127.0.0.1:80",
        "localhost:80",
        "proxy:80",
        "other:8080",
    ]
    assert "192.168.1.5:80" in allowed_hosts("192.168.1.5", 80)


def test_check_address_of_a_used_port_raises(served, explore, write, tmp_path):
    with served(explore(write(tmp_path / "a.tif"))) as running:
        port = urlsplit(running.address).port
        with pytest.raises(ConfigError, match=f"Cannot serve at 127.0.0.1:{port}: the port is in"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", find_free_port("127.0.0.1"))


def test_check_address_of_another_machine_raises():
    with pytest.raises(ConfigError, match="Expected a host name or an IPv4 address"):
        check_address("::1", 5006)
    with pytest.raises(ConfigError, match=r"Cannot serve at 192\.0\.2\.1:5006: "):
        check_address("192.0.2.1", 5006)
