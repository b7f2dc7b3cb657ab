"""Who may see the page: any program of this machine's user, or who knows a secret.

On loopback, requests are answered that were made for this machine's own names, so that no site can
come in under a name of its own (DNS rebinding). Elsewhere, page, websocket and exports ask for a
secret that is in the printed address; the page keeps it in a cookie that no script can read. In
either case Bokeh refuses a websocket that another site's page opens.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from bokeh.server.auth_provider import AuthProvider
from tornado.web import HTTPError

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
