"""A zip archive that a user names by its URL: fetched once, checked, unpacked safely, kept."""

import hashlib
import ipaddress
import os
import re
import stat
import tempfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sits_keras.errors import ConfigError, DataError
from sits_keras.files import sha256_of, written_aside

HOME_VARIABLE = "SITS_KERAS_HOME"
"""Environment variable of the folder that presets are looked for, and kept, in."""

MAX_BYTES = 2**30
"""The most that an archive may unpack to."""


def home() -> Path:
    """The folder of `SITS_KERAS_HOME`; where it is not set, the user's cache of this package."""
    if given := os.environ.get(HOME_VARIABLE):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("sits_keras"))


def is_url(text: str) -> bool:
    """Whether a text is a URL of a kind that `fetch` takes."""
    return urllib.parse.urlsplit(text).scheme in ("http", "https", "file")


def fetch(url: str, *, progress: bool = False) -> Path:
    """The folder of what a zip archive holds; fetched at the first call, and only then.

    Args:
        url: `https://`, `file://`, or `http://`, of a zip archive. The archive's checksum may be
            given behind it, `#sha256=<64 digits>`; over `http://` from another machine it must be,
            for there nothing else tells that it is what it was.
        progress: show a progress bar.
    Returns:
        A folder within `home()`.
    Raises:
        ConfigError: the URL is of another kind, or lacks a checksum that it needs.
        DataError: it cannot be fetched, has another checksum, or is no archive that may be
            unpacked: damaged, larger than `MAX_BYTES`, or with names that lead out of it.
    """
    address, _, fragment = url.partition("#")
    expected = _read_checksum(url, fragment)
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "http" and expected is None and not _is_loopback(parts.hostname):
        raise ConfigError(
            f"{url} can be altered on its way. Use https://, or append the archive's checksum: "
            f"{address}#sha256=<64 digits>."
        )
    folder = home() / "fetched" / hashlib.sha256(url.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as scratch:
        if parts.scheme == "file":
            archive = Path(urllib.request.url2pathname(parts.path))
            _check_file(archive, url, expected)
        else:
            archive = _download(address, expected, Path(scratch), progress)
        with written_aside(folder, unique=True) as aside:
            _unpack(archive, aside, url)
    return folder


def _read_checksum(url: str, fragment: str) -> str | None:
    if not fragment:
        return None
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not found:
        raise ConfigError(f"Expected #sha256=<64 hexadecimal digits> at the end. Received: {url}.")
    return found[1].lower()


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _download(address: str, expected: str | None, scratch: Path, progress: bool) -> Path:
    import pooch

    try:
        return Path(
            pooch.retrieve(
                address,
                known_hash=expected and f"sha256:{expected}",
                fname="archive.zip",
                path=scratch,
                downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60),
            )
        )
    except OSError as error:  # also what requests raises
        cause = " ".join(str(error).split())
        raise DataError(
            f"{address} cannot be fetched: {cause}. Check it, and try again."
        ) from error
    except ValueError as error:  # pooch, of a checksum
        raise DataError(
            f"{address} is not what was expected: its checksum is not {expected}. Ask whoever "
            "published it for the right one, and do not use this archive."
        ) from error


def _check_file(archive: Path, url: str, expected: str | None) -> None:
    if not archive.is_file():
        raise DataError(f"{url} cannot be fetched: there is no file {archive}.")
    if expected is not None and (found := sha256_of(archive)) != expected:
        raise DataError(f"{archive} has the checksum {found}, expected {expected}.")


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """Extract an archive after a check of the names, types and sizes of its members."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                _check_member(member, url)
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise DataError(f"{url} would unpack to more than {MAX_BYTES:,} bytes.")
            # extractall writes at most the declared size of each member.
            opened.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{url} cannot be unpacked: {error}. Expected a zip archive.") from error


def _check_member(member: zipfile.ZipInfo, url: str) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    if (
        name.is_absolute()
        or ".." in name.parts
        or ":" in member.filename
        or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    ):
        raise DataError(
            f"{url} is refused: its member {member.filename!r} would leave the folder that it is "
            "unpacked to, or is no plain file."
        )
