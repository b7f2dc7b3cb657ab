"""The server: binds, serves pages until it is interrupted, and stops cleanly."""

import logging
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable, Sequence
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server
from tornado.ioloop import IOLoop

from sits_keras.explore.access import Access
from sits_keras.explore.address import allowed_origins, free_port, is_loopback, no_address
from sits_keras.explore.explorer import Explorer
from sits_keras.explore.exports import ExportHandler, Exports
from sits_keras.explore.page import add_page


def serve(
    explorer: Explorer,
    *,
    host: str,
    port: int,
    origins: Sequence[str] = (),
    announce: Callable[[str], None],
    open_browser: bool = False,
) -> None:
    """Serves the page until the process is interrupted (SIGINT) or ended (SIGTERM).

    Args:
        explorer: what all pages share.
        host: address to bind to; one that other machines reach is guarded by a secret.
        port: to bind to, 0 for a free one.
        origins: hosts that pages may come from, beside this machine's names.
        announce: given the page's address once it is served.
        open_browser: open it in the user's browser.
    Raises:
        ConfigError: the address cannot be bound to.
    """
    # What a client sends wrong is told to it; its errors are told to us (session).
    for name in ("bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.ERROR)
    secret = None if is_loopback(host) else secrets.token_urlsafe(24)
    exports = Exports()

    def make(doc: Document) -> None:
        session = add_page(doc, explorer, exports)
        doc.on_session_destroyed(lambda context: session.close())

    if port == 0:
        port = free_port(host)
    names = allowed_origins(host, port, origins)
    cookie = f"sits_keras_explore_{port}"
    options: dict[str, Any] = {
        "auth_provider": Access(secret, names, cookie),
        "allow_websocket_origin": names,
        "exclude_cookies": [cookie],
        "extra_patterns": [(r"/export/([^/]+)/([^/]+)", ExportHandler, {"exports": exports})],
    }
    loop = IOLoop.current()
    try:
        server = Server(
            {"/": Application(FunctionHandler(make))},
            io_loop=loop,
            address=host,
            port=port,
            **options,
        )
    except OSError as error:
        raise no_address(host, port, error) from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.add_callback_from_signal(loop.stop))
    shown = socket.gethostname() if host == "0.0.0.0" else host
    address = f"http://{shown}:{port}/{f'?token={secret}' if secret else ''}"
    server.start()
    announce(address)
    if open_browser:
        loop.add_callback(webbrowser.open, address)
    loop.start()
    explorer.stop()
    server.stop()
    for context in server._tornado.applications.values():
        for session in context.sessions:
            session.destroy()
