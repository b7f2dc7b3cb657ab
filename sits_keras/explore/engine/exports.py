"""Files that a page offers for download, each at an address that cannot be guessed."""

import secrets
import threading
from pathlib import Path

from bokeh.server.views.auth_request_handler import AuthRequestHandler
from tornado.web import HTTPError

_CHUNK = 2**20


class Exports:
    """Which files are offered, by the secret in their address."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    def offer(self, file: Path) -> str:
        """The address of a file, relative to the page's."""
        secret = secrets.token_urlsafe(16)
        with self._lock:
            self._files[secret] = file
        return f"export/{secret}/{file.name}"

    def forget(self, folder: Path) -> None:
        """Offers the files of a folder no more."""
        with self._lock:
            self._files = {
                secret: file for secret, file in self._files.items() if folder not in file.parents
            }

    def find(self, secret: str, name: str) -> Path | None:
        """The file at an address, `None` where there is none."""
        file = self._files.get(secret)
        return file if file is not None and file.name == name and file.is_file() else None


class ExportHandler(AuthRequestHandler):
    """Sends a file; who asks is checked as for the page (`access`)."""

    def initialize(self, exports: Exports) -> None:
        """Tornado's constructor."""
        self._exports = exports

    async def get(self, secret: str, name: str) -> None:
        """Sends it in parts, for it may be larger than is well held in memory."""
        file = self._exports.find(secret, name)
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
