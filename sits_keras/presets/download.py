"""Download of a preset's zip archive: once, with its checksum compared, extracted safely."""

import contextlib
import errno
import functools
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
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from sits_keras.data.sources.paths import redact, without_signature
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import sha256_of, written_aside

HOME_VARIABLE = "SITS_KERAS_HOME"
"""Environment variable of the folder of presets and caches."""

MAX_BYTES = 2**30
"""Largest total size that an archive may have when extracted."""

# Errors of this machine, not of the archive.
_OWN_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE)


def home() -> Path:
    """Return the folder in `SITS_KERAS_HOME`, or the user's cache folder of this package."""
    if given := os.environ.get(HOME_VARIABLE):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("sits_keras"))


def is_url(text: str) -> bool:
    """Return whether a text is a URL of a kind that `fetch` supports."""
    return urllib.parse.urlsplit(text).scheme in ("http", "https", "file")


def fetch(url: str, *, progress: bool = False) -> Path:
    """Download and extract a zip archive, unless an earlier call did.

    A URL that differs from an earlier one only in its signature or token, as signed URLs of cloud
    storage do, is the same archive. Messages show URLs without query and credentials.

    Args:
        url: URL of a zip archive: `https://`, `file://` or `http://`. The archive's checksum can
            be appended, `#sha256=<64 digits>`; an interrupted download is then continued by the
            next call. It is required for `http://` to another machine, where nothing else protects
            the archive from being altered.
        progress: Show a progress bar.

    Returns:
        The extracted archive, a folder in `home()`.

    Raises:
        ConfigError: The URL is of another kind, or needs a checksum.
        DataError: The archive cannot be downloaded, has another checksum, is damaged, extracts to
            more than `MAX_BYTES`, or has members outside its folder.
    """
    address, _, fragment = url.partition("#")
    shown = redact(address)
    expected = _read_checksum(fragment, shown)
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "http" and expected is None and not _is_loopback(parts.hostname):
        raise ConfigError(
            f"{shown} could be altered on its way. Use https://, or append the archive's checksum: "
            f"{shown}#sha256=<64 digits>."
        )
    identity = without_signature(address) + (f"#sha256={expected}" if expected else "")
    folder = home() / "fetched" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as scratch:
        if parts.scheme == "file":
            archive = Path(urllib.request.url2pathname(parts.path))
            _check_file(archive, shown, expected)
        else:
            # Without a checksum, the rest could be of another version of the archive.
            kept = folder.with_name(f".kept-{folder.name}.zip") if expected else None
            archive = _download(address, expected, Path(scratch), kept, progress)
        with written_aside(folder, unique=True) as aside:
            _extract(archive, aside, shown)
    return folder


def _read_checksum(fragment: str, shown: str) -> str | None:
    if not fragment:
        return None
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not found:
        raise ConfigError(
            "Expected #sha256=<64 hexadecimal digits> at the end of the URL. Received: "
            f"{shown}#{fragment}."
        )
    return found[1].lower()


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _download(
    address: str, expected: str | None, scratch: Path, kept: Path | None, progress: bool
) -> Path:
    """Download an archive to a folder and compare its checksum.

    If the download is interrupted, what was received stays in `kept`, from which the next call
    continues.
    """
    import pooch

    shown = redact(address)
    downloader: Callable[..., None] = pooch.HTTPDownloader(progressbar=progress, timeout=60)
    if kept is not None:
        downloader = functools.partial(_continue_download, kept, progress)
    try:
        with _quiet_pooch():
            return Path(
                pooch.retrieve(
                    address,
                    known_hash=expected and f"sha256:{expected}",
                    fname="archive.zip",
                    path=scratch,
                    downloader=downloader,
                )
            )
    except OSError as error:  # also the errors of requests
        if error.errno in _OWN_ERRORS:
            raise
        message = f"{shown} cannot be fetched: {_describe_failure(error, address)}"
    except ValueError:  # of pooch, about the checksum
        message = (
            f"{shown} is not what was expected: its checksum is not {expected}. Ask its publisher "
            "for the right one, and do not use this archive."
        )
    # Raised here, so that no cause whose text has the whole URL is shown with it.
    raise DataError(message)


def _continue_download(kept: Path, progress: bool, url: str, output: str, pooch: Any) -> None:
    """Write a file as a downloader of pooch, beginning with what an earlier call kept."""
    import requests

    begin = kept.stat().st_size if kept.is_file() else 0
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if response.status_code != 416:  # nothing is left to send
            response.raise_for_status()
            begin = begin if response.status_code == 206 else 0
            rest = response.headers.get("Content-Length")
            with (
                kept.open("ab" if begin else "wb") as file,
                tqdm(
                    total=begin + int(rest) if rest else None,
                    initial=begin,
                    unit="B",
                    unit_scale=True,
                    disable=not progress,
                ) as bar,
            ):
                for chunk in response.iter_content(2**16):
                    bar.update(file.write(chunk))
    os.replace(kept, output)


def _describe_failure(error: OSError, address: str) -> str:
    """Describe why a download failed and what to do, without the secrets of its URL."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    is_signed = without_signature(address) != address
    if status in (401, 403) or (status == 400 and is_signed):
        return (
            f"the server refuses access ({status}). The URL may have expired, or need a login. Get "
            "a new URL, then repeat the command."
        )
    if status in (404, 410):
        return f"the server has no such file ({status}). Check the URL."
    if status is not None and (status == 429 or status >= 500):
        return f"the server is busy or failing ({status}). Try again later."
    query = urllib.parse.urlsplit(address).query
    cause = " ".join(str(error).split()).rstrip(".")
    if query:
        cause = cause.replace(f"?{query}", "")
    return f"{redact(cause)}. Check the URL and the network, then try again."


@contextlib.contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch from logging the URL that it downloads."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_file(archive: Path, shown: str, expected: str | None) -> None:
    if not archive.is_file():
        raise DataError(f"{shown} cannot be fetched: no file at {archive}.")
    if expected is not None and (found := sha256_of(archive)) != expected:
        raise DataError(
            f"{archive} has another checksum. Expected: sha256 {expected}. Received: {found}."
        )


def _extract(archive: Path, folder: Path, shown: str) -> None:
    """Extract an archive after a check of the names, types and sizes of its members."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                member.filename = member.filename.replace("\\", "/")  # as written on Windows
                _check_member(member, shown)
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise DataError(f"{shown} would extract to more than {MAX_BYTES:,} bytes.")
            # extractall writes at most the declared size of each member.
            opened.extractall(folder, members)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _OWN_ERRORS:
            raise
        raise DataError(
            f"{shown} cannot be extracted: {_describe_content(archive) or error}. Expected a zip "
            "archive."
        ) from error


def _describe_content(archive: Path) -> str:
    """Describe a file that is often saved in place of an archive; empty if it is another one."""
    with archive.open("rb") as opened:
        beginning = opened.read(100).lstrip().lower()
    if not beginning:
        return "it is empty; fetch it again"
    if beginning.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; use the download link of the file itself"
    if beginning.startswith((b"<", b"{")):
        return "it is a web page or a message of the server; log in, or use the download link"
    return "it is damaged, possibly truncated; fetch it again" if beginning[:2] == b"pk" else ""


def _check_member(member: zipfile.ZipInfo, shown: str) -> None:
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if (
        name.is_absolute()
        or ".." in name.parts
        or ":" in member.filename
        or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    ):
        raise DataError(
            f"{shown} is refused: its member {member.filename!r} would leave the folder that it is "
            "extracted to, or is not a regular file."
        )
