"""The server: binds, serves pages until it is interrupted, and stops cleanly."""

import contextlib
import hmac
import ipaddress
import logging
import secrets
import signal
import socket
import webbrowser
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import Server
from bokeh.settings import settings
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import HTTPError

from sits_keras.errors import ConfigError
from sits_keras.explore.engine.explorer import Explorer
from sits_keras.explore.engine.exports import ExportHandler, Exports
from sits_keras.explore.views.page import add_page
from sits_keras.explore.views.session import Session


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_origins(host: str, port: int, given: Sequence[str] = ()) -> list[str]:
    """Which `host:port` pages may open a websocket from: this machine's names.

    Args:
        host: address that the server is bound to.
        port: its port.
        given: others, as `host` or `host:port`.
    """
    names = [host, "localhost", "127.0.0.1"]
    if not is_loopback(host):
        names += [socket.gethostname(), socket.getfqdn()]
        with contextlib.suppress(OSError):  # a name that no resolver knows
            names += socket.gethostbyname_ex(socket.gethostname())[2]
    origins = [f"{one}:{port}".lower() for one in names]
    others = [one if ":" in one else f"{one}:{port}" for one in given]
    return list(dict.fromkeys(origins + others))


def check_port(host: str, port: int) -> None:
    """Raises ConfigError where an address cannot be bound to: before a model is loaded for it."""
    if ":" in host:
        raise ConfigError(
            f"Expected a name or an IPv4 address: Bokeh checks origins by these. Received: {host}."
        )
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise no_address(host, port, error) from error
    for one in sockets:
        one.close()


def free_port(host: str) -> int:
    """A port that nobody is at."""
    (first, *others) = bind_sockets(0, host)
    port: int = first.getsockname()[1]
    for one in (first, *others):
        one.close()
    return port


def no_address(host: str, port: int, error: OSError) -> ConfigError:
    """What to tell of an address that cannot be bound to."""
    why = "Another program is there" if "in use" in str(error) else (error.strerror or str(error))
    return ConfigError(
        f"{host}:{port} cannot be served at: {why}. Name another port (--port), 0 for any that is "
        "free."
    )


_USER = "local"


class Access(AuthProvider):
    """Asks for the secret where there is one, else for a name of this machine's.

    Args:
        secret: what to ask for, `None` on loopback.
        hosts: `host:port` that requests may be made for, without a secret.
        cookie: its name.
    """

    def __init__(self, secret: str | None, hosts: Sequence[str], cookie: str):
        self._secret, self._hosts, self._cookie = secret, set(hosts), cookie
        super().__init__()

    @property
    def get_user(self) -> None:
        """Not asked: what is refused is refused before a page or a websocket is opened."""
        return None

    @property
    def get_user_async(self) -> Callable[[Any], Awaitable[str]]:
        """Called before each request is answered, a websocket's too."""
        return self._check

    @property
    def login_url(self) -> str:
        """Bokeh wants one; nobody is sent there."""
        return "/"

    get_login_url = login_handler = logout_url = logout_handler = None

    async def _check(self, handler: Any) -> str:
        if self._secret is None:
            host = urlsplit(f"//{handler.request.host}").netloc.lower()
            if host not in self._hosts:
                raise HTTPError(403, reason="Not a name of this machine")
            return _USER
        given = handler.get_argument("token", None)
        known = given if given is not None else handler.get_cookie(self._cookie, "")
        if not hmac.compare_digest(known.encode(), self._secret.encode()):
            raise HTTPError(403, reason="Open the address that the terminal shows")
        if given is not None:
            # Out of the address bar, of the history and of whatever is copied from there.
            handler.set_cookie(self._cookie, given, httponly=True, samesite="Strict")
            handler.redirect(handler.request.path)
        return _USER


class Running(NamedTuple):
    """A server that answers while its loop runs.

    Attributes:
        address: of the page, the secret in it where there is one.
        server: Bokeh's.
        loop: to be started; the server ends with `stop`.
        stop: gives up what is under way, and ends the server. To be called in the loop's thread.
    """

    address: str
    server: Server
    loop: IOLoop
    stop: Callable[[], None]


def start(explorer: Explorer, *, host: str, port: int, origins: Sequence[str] = ()) -> Running:
    """Makes a server of the page, on the loop of this thread.

    Args:
        explorer: what all pages share.
        host: address to bind to; one that other machines reach is guarded by a secret.
        port: to bind to, 0 for a free one.
        origins: hosts that pages may come from, beside this machine's names.
    Raises:
        ConfigError: the address cannot be bound to.
    """
    # What a client sends wrong is told to it; what fails on a page, to the user (session).
    for name in ("bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.ERROR)
    settings.resources = "server"  # whatever the environment says: nothing from another host
    secret = None if is_loopback(host) else secrets.token_urlsafe(24)
    exports = Exports()
    sessions: set[Session] = set()

    def make(doc: Document) -> None:
        session = add_page(doc, explorer, exports)
        sessions.add(session)

        def close(context: Any) -> None:
            sessions.discard(session)
            session.close()

        doc.on_session_destroyed(close)

    if port == 0:
        port = free_port(host)
    names = allowed_origins(host, port, origins)
    settings.allowed_ws_origin = names  # the environment may allow all
    cookie = f"sits_keras_explore_{port}"
    loop = IOLoop.current()
    try:
        server = Server(
            {"/": Application(FunctionHandler(make))},
            io_loop=loop,
            address=host,
            port=port,
            auth_provider=Access(secret, names, cookie),
            allow_websocket_origin=names,
            exclude_cookies=[cookie],
            extra_patterns=[(r"/export/([^/]+)/([^/]+)", ExportHandler, {"exports": exports})],
        )
    except OSError as error:
        raise no_address(host, port, error) from error
    server.start()

    def stop() -> None:
        explorer.stop()
        server.stop()
        for session in list(sessions):
            session.close()
        loop.stop()

    shown = socket.gethostname() if host == "0.0.0.0" else host
    address = f"http://{shown}:{port}/{f'?token={secret}' if secret else ''}"
    return Running(address, server, loop, stop)


def serve(running: Running, *, open_browser: bool) -> None:
    """Answers until the process is interrupted (SIGINT) or ended (SIGTERM).

    Args:
        running: what `start` gave, in the main thread.
        open_browser: open the page in the user's browser.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: running.loop.add_callback_from_signal(running.stop))
    if open_browser:
        running.loop.add_callback(webbrowser.open, running.address)
    running.loop.start()
