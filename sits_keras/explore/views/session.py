"""State and background work of one open page, its views, and the files that it offers."""

import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bokeh.document import Document
from bokeh.models import Div, LayoutDOM

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import SitsKerasError
from sits_keras.explore.engine.explorer import Explorer, OnProgress, StoppedError
from sits_keras.explore.engine.sources import ExploredPlace
from sits_keras.tasks.change.maps import ModelPart

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
        """Return the file at an address, or `None` if there is none."""
        file = self._files.get(key)
        return file if file is not None and file.name == name and file.is_file() else None


class Session:
    """State that the views of one page share.

    Args:
        doc: Document of the page.
        explorer: Rasters and model that all pages share.
        downloads: Files that pages offer.

    Attributes:
        explorer: Rasters and model that all pages share.
        place: Place that the page shows.
        at: First row and column of the chosen window.
        status: Line that shows progress and errors.
    """

    def __init__(self, doc: Document, explorer: Explorer, downloads: Downloads):
        self.explorer = explorer
        self.status = Div(
            text=status_html("Ready."),
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

    def go_to(self, place: ExploredPlace) -> None:
        """Choose a place, and the window at its centre."""
        self.place = place
        self.at = (
            (place.grid.height - IMAGE_SIZE) // 2,
            (place.grid.width - IMAGE_SIZE) // 2,
        )

    def close(self) -> None:
        """Cancel running work and remove the exported files."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._folder is not None:
            self._downloads.withdraw(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def show_status(self, text: str, is_error: bool = False) -> None:
        """Show a line of progress, or an error. To be called in the page's own thread."""
        self.status.text = status_html(text, is_error)

    def show_error(self, error: Exception) -> None:
        """Show the message of an expected error; log an unexpected one in the terminal."""
        if isinstance(error, SitsKerasError | OSError):
            self.show_status(str(error), is_error=True)
        else:
            logging.getLogger(__name__).error("An error in explore", exc_info=error)
            self.show_status(f"Failed: {error!r}. See the terminal for details.", is_error=True)

    def work(
        self,
        slot: str,
        function: Callable[[OnProgress], T],
        on_result: Callable[[T], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Call a function in another thread, and handle its result in the page's own.

        Args:
            slot: Purpose of the result. Of several calls for one purpose only the last counts.
            function: Function that takes a function to report progress with.
            on_result: Function that takes the result.
            on_end: Function that is called at the end, after an error too.
        """
        self.work_through(
            slot, lambda on_progress: iter([function(on_progress)]), on_result, on_end
        )

    def work_through(
        self,
        slot: str,
        function: Callable[[OnProgress], Iterator[T]],
        on_result: Callable[[T], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Do as `work` for a function that yields its results one by one."""
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
                for result in function(lambda text: later(self.show_status, text)):
                    if not is_current():
                        return
                    later(on_result, result)
            except StoppedError:
                return
            except Exception as error:  # the page stays usable, and shows the error
                later(self.show_error, error)
            later(on_end)

        if not self._closed:
            self._pool.submit(run)

    def export_folder(self) -> Path:
        """Return a new empty folder for an export, removed when the page is closed."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sits-keras-explore-"))
        return Path(tempfile.mkdtemp(dir=self._folder))

    def offer(self, files: list[Path]) -> list[tuple[str, str, int]]:
        """Offer files for download and return the name, address and size in bytes of each."""
        return [(file.name, self._downloads.offer(file), file.stat().st_size) for file in files]


class View:
    """Base class of the views of a page.

    Args:
        session: Session of the page.

    Attributes:
        label: Title of the view.
        needs: Part of the model without which the view cannot be shown, or None.
        needs_place: Whether the view shows the chosen place.
        needs_dates: Whether the place must have rasters of single dates.
        root: Layout of the view.
    """

    label: ClassVar[str]
    needs: ClassVar[ModelPart | None] = None
    needs_place: ClassVar[bool] = True
    needs_dates: ClassVar[bool] = False
    root: LayoutDOM

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer

    def resume(self) -> None:
        """Show what another view may have changed; by default, views are independent."""


def status_html(text: str, is_error: bool = False) -> str:
    """Render a status line as HTML."""
    kind = "error" if is_error else "note"
    return f'<p class="{kind}">{"&#9888; " if is_error else ""}{escape(text)}</p>'
