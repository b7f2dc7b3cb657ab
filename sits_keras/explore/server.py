"""Serve the page until the process is interrupted, to whoever holds its token."""

import contextlib
import hmac
import html
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import Server
from bokeh.server.views.auth_request_handler import AuthRequestHandler
from bokeh.settings import settings
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from sits_keras.errors import ConfigError

if TYPE_CHECKING:
    from sits_keras.explore.engine.explorer import Explorer
    from sits_keras.explore.views.session import Downloads, Session

_CHUNK = 2**20
_TOKEN_BYTES = 32
_USER = "local"


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, port: int, extra: Sequence[str] = ()) -> list[str]:
    """List the `host:port` that requests and websockets may come from.

    Args:
        host: Address that the server is bound to.
        port: Port that the server is bound to.
        extra: Further names, as `host` or `host:port`, such as a proxy's.

    Returns:
        Lower-case `host:port` strings: the names of this machine, then the further ones.
    """
    names = [host, "localhost", "127.0.0.1"]
    if not is_loopback(host):
        names += [socket.gethostname(), socket.getfqdn()]
        with contextlib.suppress(OSError):  # a name that no resolver knows
            names += socket.gethostbyname_ex(socket.gethostname())[2]
    own = [f"{name}:{port}" for name in names]
    others = [name if ":" in name else f"{name}:{port}" for name in extra]
    return list(dict.fromkeys(name.lower() for name in own + others))


def check_address(host: str, port: int) -> None:
    """Check that an address can be bound to, before a model is loaded for it.

    Raises:
        ConfigError: The address is an IPv6 address, is in use, or does not belong to this machine.
    """
    if ":" in host:
        raise ConfigError(
            "--host does not take an IPv6 address: Bokeh cannot check its origin. Expected a host "
            f"name or an IPv4 address. Received: {host}."
        )
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise _bind_error(host, port, error) from error
    for bound in sockets:
        bound.close()


def find_free_port(host: str) -> int:
    """Return a port of an address that is free now."""
    (first, *others) = bind_sockets(0, host)
    port: int = first.getsockname()[1]
    for bound in (first, *others):
        bound.close()
    return port


def _bind_error(host: str, port: int, error: OSError) -> ConfigError:
    reason = "the port is in use" if "in use" in str(error) else (error.strerror or str(error))
    return ConfigError(
        f"Cannot serve at {host}:{port}: {reason}. Choose another port with --port, or --port 0 "
        "for any free one."
    )


class TokenAuth(AuthProvider):
    """Answer requests that carry the token and are addressed to a known name.

    The token is taken from the query of the address, or from the cookie that the server sets once
    it was. A name that is not known is refused even with the token: another site's name may be
    made to resolve to this machine (DNS rebinding).

    Args:
        token: Secret that each request must carry.
        hosts: `host:port` that requests may be addressed to.
        cookie: Name of the cookie.
    """

    def __init__(self, token: str, hosts: Sequence[str], cookie: str):
        self._token, self._hosts, self._cookie = token, set(hosts), cookie
        super().__init__()

    @property
    def get_user(self) -> None:
        """Unused: `get_user_async` decides before a page or a websocket is opened."""
        return None

    @property
    def get_user_async(self) -> Callable[[Any], Awaitable[str]]:
        """Function that Bokeh calls before it answers a request, a websocket's included."""
        return self._check

    @property
    def login_url(self) -> str:
        """Address that Bokeh requires; no request is redirected to it."""
        return "/"

    get_login_url = login_handler = logout_url = logout_handler = None

    async def _check(self, handler: RequestHandler) -> str:
        handler.set_header("Referrer-Policy", "no-referrer")
        request = handler.request
        host = request.host.lower()
        if (host if ":" in host else f"{host}:80") not in self._hosts:
            raise HTTPError(403, reason="Unknown host name. Name it with --origin")
        in_address = handler.get_query_argument("token", None)
        token = handler.get_cookie(self._cookie, "") if in_address is None else in_address
        # Nothing that is logged of the request from here on shows the token.
        request.uri, request.query = request.path, ""
        if not hmac.compare_digest((token or "").encode(), self._token.encode()):
            raise HTTPError(403, reason="Open the address that the terminal shows")
        if in_address is not None and not isinstance(handler, WebSocketHandler):
            # Out of the address bar and the history. Lax, not Strict: the browser comes here from
            # the redirect file, which is another site.
            handler.set_cookie(self._cookie, self._token, httponly=True, samesite="Lax")
            handler.set_header("Cache-Control", "no-store")
            handler.redirect(request.path)
        return _USER


class DownloadHandler(AuthRequestHandler):
    """Send a file that a page offers, to whoever may see the page."""

    def initialize(self, downloads: "Downloads") -> None:
        """Take what Tornado passes to each handler."""
        self._downloads = downloads

    async def get(self, key: str, name: str) -> None:
        """Send the file in parts, for it may be larger than memory."""
        file = self._downloads.find(key, name)
        if file is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.set_header("Content-Length", file.stat().st_size)
        self.set_header("X-Content-Type-Options", "nosniff")
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                self.write(chunk)
                await self.flush()


class RunningServer(NamedTuple):
    """A server that answers while its loop runs.

    Attributes:
        address: Address of the page, with the token.
        server: Bokeh's server.
        loop: Loop to start.
        stop: Function that cancels running work and ends the server and the loop; to be called in
            the loop's thread.
    """

    address: str
    server: Server
    loop: IOLoop
    stop: Callable[[], None]


def start(
    explorer: "Explorer", *, host: str, port: int, origins: Sequence[str] = ()
) -> RunningServer:
    """Start a server of the page on the loop of this thread.

    Args:
        explorer: Rasters and model that all pages share.
        host: Address to bind to.
        port: Port to bind to; 0 for a free one.
        origins: Further `host` or `host:port` that the page is reached by, such as a proxy's.

    Returns:
        The server. Each has a token of its own, without which it answers no request.

    Raises:
        ConfigError: The address cannot be bound to.
    """
    # Loads TensorFlow, which `check_address` can do without.
    from sits_keras.explore.views.page import add_page
    from sits_keras.explore.views.session import Downloads

    # Errors of clients go to the clients, and errors of a page to its user (session). Some
    # lines of Tornado's show the address of a request.
    for name in ("bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.ERROR)
    settings.resources = "server"  # overrides BOKEH_RESOURCES: nothing comes from another host
    downloads = Downloads()
    sessions: set[Session] = set()

    def make(doc: Document) -> None:
        session = add_page(doc, explorer, downloads)
        sessions.add(session)

        def close(context: Any) -> None:
            sessions.discard(session)
            session.close()

        doc.on_session_destroyed(close)

    if port == 0:
        port = find_free_port(host)
    hosts = allowed_hosts(host, port, origins)
    settings.allowed_ws_origin = hosts  # overrides BOKEH_ALLOW_WS_ORIGIN, which may allow all
    token, cookie = secrets.token_urlsafe(_TOKEN_BYTES), f"sits_keras_explore_{port}"
    loop = IOLoop.current()
    try:
        server = Server(
            {"/": Application(FunctionHandler(make))},
            io_loop=loop,
            address=host,
            port=port,
            auth_provider=TokenAuth(token, hosts, cookie),
            allow_websocket_origin=hosts,
            # Bokeh writes the others into the page.
            exclude_cookies=[cookie],
            exclude_headers=["Cookie", "Referer"],
            extra_patterns=[
                (r"/export/([^/]+)/([^/]+)", DownloadHandler, {"downloads": downloads})
            ],
        )
    except OSError as error:
        raise _bind_error(host, port, error) from error
    server.start()

    def stop() -> None:
        explorer.stop()
        server.stop()
        for session in list(sessions):
            session.close()
        loop.stop()

    shown_host = socket.gethostname() if host == "0.0.0.0" else host
    return RunningServer(f"http://{shown_host}:{port}/?token={token}", server, loop, stop)


def serve(running: RunningServer, *, open_browser: bool) -> None:
    """Answer requests until the process is interrupted (SIGINT) or ended (SIGTERM).

    Args:
        running: Result of `start`, in the main thread.
        open_browser: Open the page in the user's browser where there is a display.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: running.loop.add_callback_from_signal(running.stop))
    with contextlib.ExitStack() as stack:
        if open_browser and has_browser():
            file = stack.enter_context(redirect_file(running.address))
            # In a thread: a browser that runs in the terminal returns when it is closed.
            opener = threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True)
            running.loop.add_callback(opener.start)
        running.loop.start()


def has_browser() -> bool:
    """Return whether a browser can be opened: one that BROWSER names, or one with a display."""
    if sys.platform != "linux" or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def redirect_file(address: str) -> Iterator[Path]:
    """Write an HTML file that redirects to an address, for as long as the context lasts.

    Only its owner can read it. A browser that is given the file in place of the address does not
    show the token among its arguments, which other accounts of the machine can read (`ps`).

    Args:
        address: Address of the page, with the token.
    """
    shown = html.escape(address)
    number, name = tempfile.mkstemp(prefix="sits-keras-explore-", suffix=".html")  # mode 0600
    file = Path(name)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as opened:
            opened.write(
                '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
                '<meta name="referrer" content="no-referrer">'
                f'<meta http-equiv="refresh" content="0; url={shown}">'
                "<title>sits_keras explore</title></head>"
                f'<body><a href="{shown}">Open sits_keras explore</a></body></html>\n'
            )
        yield file
    finally:
        file.unlink(missing_ok=True)
