"""Who may see the page, asked of a server that runs."""

import http.client
import re
from urllib.parse import urlsplit

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from sits_keras.errors import ConfigError
from sits_keras.explore.server import allowed_origins, check_port, free_port, is_loopback


def ask(address, path="/", **headers):
    """Status, headers and text of a page."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
    connection.request("GET", path, headers={"Host": parts.netloc, **headers})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def open_websocket(address, page, **headers):
    """Opens the page's websocket as a browser does; the status where it is refused, else 101."""
    token = re.search(r'"token":"([^"]+)"', page)[1]
    parts = urlsplit(address)
    request = HTTPRequest(
        f"ws://127.0.0.1:{parts.port}/ws",
        headers={"Host": parts.netloc, "Sec-WebSocket-Protocol": f"bokeh, {token}", **headers},
    )

    async def connect():
        connection = await websocket_connect(request)
        connection.close()
        return 101

    try:
        return IOLoop(make_current=False).run_sync(connect, timeout=30)
    except HTTPClientError as error:
        return error.code


def test_on_loopback_it_answers_to_this_machines_names_alone(served, explore, write, tmp_path):
    with served(explore(write(tmp_path / "a.tif"))) as running:
        address = running.address
        assert urlsplit(address).query == ""
        status, _, page = ask(address)
        assert status == 200
        port = urlsplit(address).port
        assert ask(address, Host=f"localhost:{port}")[0] == 200
        assert ask(address, Host="evil.example")[0] == 403
        assert ask(address, Host=f"evil.example:{port}")[0] == 403
        own = f"http://127.0.0.1:{port}"
        assert open_websocket(address, page, Origin=own) == 101
        assert open_websocket(address, page, Origin="http://evil.example") == 403
        assert open_websocket(address, page, Origin=own, Host="evil.example") == 403
        assert ask(address, "/export/guess/a.tif")[0] == 404
        assert ask(address, "/export/guess/a.tif", Host="evil.example")[0] == 403


def test_elsewhere_it_asks_for_the_secret(served, explore, write, tmp_path, monkeypatch):
    monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", "*")
    with served(explore(write(tmp_path / "a.tif")), host="0.0.0.0") as running:
        address = running.address
        secret = urlsplit(address).query.removeprefix("token=")
        assert len(secret) >= 32
        for path in ("/metadata", "/autoload.js?bokeh-autoload-element=1", "/ws"):
            assert ask(address, path)[0] in (400, 403)
        for path in ("/", "/?token=", "/?token=guess", f"/?token={secret[:-1]}", "/export/a/b"):
            assert ask(address, path)[0] == 403
        status, headers, _ = ask(address, f"/?token={secret}")
        assert (status, headers["Location"]) == (302, "/")
        cookie, *flags = headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(flags)
        status, _, page = ask(address, Cookie=cookie)
        assert status == 200
        assert secret not in page
        own = f"http://{urlsplit(address).netloc}"
        assert open_websocket(address, page, Origin=own, Cookie=cookie) == 101
        assert open_websocket(address, page, Origin=own) == 403
        wrong = cookie[:-1] + ("a" if cookie[-1] != "a" else "b")
        assert open_websocket(address, page, Origin=own, Cookie=wrong) == 403
        assert open_websocket(address, page, Origin="http://evil.example", Cookie=cookie) == 403
        assert ask(address, "/export/a/b", Cookie=cookie)[0] == 404


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
def test_loopback_is_told(host, expected):
    assert is_loopback(host) is expected


def test_pages_come_from_this_machines_names_and_those_given():
    assert allowed_origins("127.0.0.1", 80, ["proxy", "other:8080"]) == [
        "127.0.0.1:80",
        "localhost:80",
        "proxy:80",
        "other:8080",
    ]
    assert "192.168.1.5:80" in allowed_origins("192.168.1.5", 80)


def test_a_port_that_is_taken_is_told(served, explore, write, tmp_path):
    with served(explore(write(tmp_path / "a.tif"))) as running:
        address = running.address
        port = urlsplit(address).port
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be served at: Another pro"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", free_port("127.0.0.1"))


def test_an_address_that_is_none_is_told():
    with pytest.raises(ConfigError, match="Expected a name or an IPv4 address"):
        check_port("::1", 5006)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:5006 cannot be served at: "):
        check_port("192.0.2.1", 5006)
