"""The server: binds, serves pages until it is interrupted, and stops cleanly."""

import logging
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server
from bokeh.settings import settings
from tornado.ioloop import IOLoop

from sits_keras.explore.access import Access
from sits_keras.explore.address import allowed_origins, free_port, is_loopback, no_address
from sits_keras.explore.engine.explorer import Explorer
from sits_keras.explore.engine.exports import ExportHandler, Exports
from sits_keras.explore.views.page import add_page
from sits_keras.explore.views.session import Session


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
