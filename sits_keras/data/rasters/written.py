"""Rasters that GDAL writes, there whole or not at all.

Where a disk is full, GDAL may say so when a file is closed, on stderr alone.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from sits_keras.data.rasters.read import check_whole, open_raster
from sits_keras.errors import DataError, OutputError
from sits_keras.files import written_aside


@contextlib.contextmanager
def whole_raster(path: Path) -> Iterator[Path]:
    """`files.written_aside` for a raster, which is looked at before it gets its real name.

    Raises:
        OutputError: GDAL could not write it, or not all of it.
    """
    with written_aside(path) as aside:
        try:
            yield aside
            with open_raster(aside) as written:
                check_whole(written, [written.count])
        except Exception as error:
            is_of_gdal = type(error).__module__.startswith("rasterio")
            if is_of_gdal or (isinstance(error, DataError) and str(aside) in str(error)):
                raise _error(path, error) from error
            raise


def _error(path: Path, cause: BaseException) -> OutputError:
    while cause.__cause__:
        cause = cause.__cause__
    free = shutil.disk_usage(path.parent).free
    why = str(cause).rstrip(".").replace(".partial-", "")
    return OutputError(
        f"{path} could not be written whole: {why}. Its disk may be full: {free / 1e6:,.1f} MB are "
        "free without it. Free more, or name another place, and try again."
    )
