"""Addresses that the page is served at."""

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from tornado.netutil import bind_sockets

from sits_keras.errors import ConfigError


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
