"""One open page: its document, the place that it is at, and work that goes on beside it."""

import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from bokeh.document import Document
from bokeh.models import Div

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import SitsKerasError
from sits_keras.explore.engine.explorer import Explorer, Tell
from sits_keras.explore.engine.model import StoppedError
from sits_keras.explore.engine.sources import Place
from sits_keras.explore.views.html import message

T = TypeVar("T")

_NUM_THREADS = 8  # most of them wait for a raster that is being encoded


class Downloads:
    """Files that pages offer for download, each at an address that cannot be guessed."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    def offer(self, file: Path) -> str:
        """Offer a file and return its address, relative to the page's."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._files[key] = file
        return f"export/{key}/{file.name}"

    def withdraw(self, folder: Path) -> None:
        """Stop offering the files of a folder."""
        with self._lock:
            self._files = {
                key: file for key, file in self._files.items() if folder not in file.parents
            }

    def find(self, key: str, name: str) -> Path | None:
        """Return the file at an address, or `None` where there is none."""
        file = self._files.get(key)
        return file if file is not None and file.name == name and file.is_file() else None


class Session:
    """What the views of one page share.

    Attributes:
        explorer: what all pages share.
        place: the rasters that are looked at.
        at: row and column that the chosen window begins in.
        status: where the page says what is going on.
    """

    def __init__(self, doc: Document, explorer: Explorer, downloads: Downloads):
        self.explorer = explorer
        self.status = Div(
            text=message("Ready."),
            sizing_mode="stretch_width",
            html_attributes={"role": "status", "aria-live": "polite"},
            name="status",
        )
        self._doc, self._downloads = doc, downloads
        self._pool = ThreadPoolExecutor(_NUM_THREADS)
        self._latest: dict[str, int] = {}
        self._closed = False
        self._folder: Path | None = None
        self.go_to(explorer.places[0])

    def go_to(self, place: Place) -> None:
        """Takes a place, at its middle."""
        self.place = place
        self.at = (
            (place.grid.height - IMAGE_SIZE) // 2,
            (place.grid.width - IMAGE_SIZE) // 2,
        )

    def close(self) -> None:
        """Gives up what is under way, and removes what was exported."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._folder is not None:
            self._downloads.withdraw(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def say(self, text: str, is_error: bool = False) -> None:
        """Shows a line of what is going on. To be called in the page's own thread."""
        self.status.text = message(text, is_error)

    def fails(self, error: Exception) -> None:
        """Shows what went wrong: the line of an error that is foreseen, else where to look."""
        if isinstance(error, SitsKerasError | OSError):
            self.say(str(error), is_error=True)
        else:
            logging.getLogger(__name__).error("a page failed", exc_info=error)
            self.say(f"Failed: {error!r}. The terminal says where.", is_error=True)

    def work(
        self,
        slot: str,
        function: Callable[[Tell], T],
        done: Callable[[T], None],
        finally_: Callable[[], None] = lambda: None,
    ) -> None:
        """Calls a function in another thread, and what is done with its result in the page's own.

        Args:
            slot: what the result is for; of several calls for one, the last counts alone.
            function: given what tells of its progress.
            done: given its result.
            finally_: called when it has ended, well or not.
        """
        self.work_through(slot, lambda tell: iter([function(tell)]), done, finally_)

    def work_through(
        self,
        slot: str,
        function: Callable[[Tell], Iterator[T]],
        each: Callable[[T], None],
        finally_: Callable[[], None] = lambda: None,
    ) -> None:
        """The same for a function that gives its results one by one."""
        number = self._latest[slot] = self._latest.get(slot, 0) + 1

        def is_current() -> bool:
            return not self._closed and self._latest[slot] == number

        def later(call: Callable[..., Any], *arguments: Any) -> None:
            def now() -> None:
                if is_current():
                    call(*arguments)

            if is_current():
                self._doc.add_next_tick_callback(now)

        def run() -> None:
            try:
                for one in function(lambda text: later(self.say, text)):
                    if not is_current():
                        return
                    later(each, one)
            except StoppedError:
                return
            except Exception as error:  # whatever it is, the page goes on and says so
                later(self.fails, error)
            later(finally_)

        if not self._closed:
            self._pool.submit(run)

    def export_folder(self) -> Path:
        """A new empty folder for an export, within the page's own."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sits-keras-explore-"))
        return Path(tempfile.mkdtemp(dir=self._folder))

    def offer(self, files: list[Path]) -> list[tuple[str, str, int]]:
        """Name, address and bytes of files that may now be downloaded."""
        return [(one.name, self._downloads.offer(one), one.stat().st_size) for one in files]
