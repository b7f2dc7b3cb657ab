"""Paths and URLs of sources: hidden files, signed URLs, names for GDAL, and removal of secrets."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from sits_keras.errors import DataError

_HIDDEN_NAMES = {
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "desktop.ini"),
}
_TEMPORARY_SUFFIXES = {".tmp", ".temp", ".part", ".partial", ".crdownload", ".download"}

_REMOTE = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}
_VSI_PREFIXES = (*_REMOTE.values(), "/vsiaz/", "/vsiadls/", "/vsioss/", "/vsiswift/", "/vsizip/")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>{}]+|/vsi(?:s3|gs|az|adls)/[^\s'\"<>{}]+", re.I)
# Of a URL without its host, as libraries print it.
_SIGNED_QUERY = re.compile(
    r"\?[^\s'\"<>()]*(?:sig|signature|token|credential)=[^\s'\"<>()]*", re.IGNORECASE
)
_SAFE_IN_URLS = "%/:?#[]@!$&'()*+,;=~"

# Query parameters that sign a URL for some time, and do not choose what it returns.
_SIGNATURE_PREFIXES = ("x-amz-", "x-goog-")
_TOKENS = {"token", "access_token", "api_key", "apikey", "subscription-key", "sig", "signature"}
_ONLY_BESIDE_SIG = {  # of a shared access signature: short names, which may mean anything elsewhere
    *("sv", "ss", "srt", "sr", "sp", "st", "se", "spr", "sip", "si", "sdd", "rscc", "rscd", "rsct"),
    *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
}
_ONLY_BESIDE_SIGNATURE = {"expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"}


def is_hidden(path: PurePath | str) -> bool:
    """Return whether a file is hidden or temporary, or lies in a folder that is.

    Every listing of files in this package passes over such names: `._*` and `__MACOSX` of macOS,
    `@eaDir` and `#recycle` of network storage, `Thumbs.db`, partial downloads, backups.

    Args:
        path: Path relative to the folder or archive that is listed. Slashes and backslashes
            separate folders; a path that ends with one is a folder, which is never temporary.

    Returns:
        Whether to pass over the path.

    Examples:
        >>> is_hidden("lake/._2020-04-21.tif")
        True
        >>> is_hidden("lake/2020-04-21.tif")
        False
    """
    parts = [part for part in re.split(r"[/\\]", str(path)) if part not in ("", ".", "..")]
    if any(part.startswith(".") or part.lower() in _HIDDEN_NAMES for part in parts):
        return True
    if not parts or str(path).endswith(("/", "\\")):
        return False
    name = PurePath(parts[-1])
    return (
        name.name.startswith("~$")
        or name.name.endswith("~")
        or name.suffix.lower() in _TEMPORARY_SUFFIXES
    )


def list_folder(folder: Path) -> list[Path]:
    """Return the visible files and folders in a folder, sorted by name.

    Args:
        folder: Folder to list.

    Returns:
        Its entries that are not hidden (see `is_hidden`). A link that points to nothing counts.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if not is_hidden(f"{path.name}/" if path.is_dir() else path.name)
    )


def walk_folder(folder: Path) -> Iterator[Path]:
    """List the visible files below a folder, at any depth.

    Args:
        folder: Folder to list. Hidden folders in it are not entered (see `is_hidden`), and links
            to folders are not followed.

    Yields:
        Paths of files, in sorted order.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(f"{name}/"))
        yield from (Path(parent, name) for name in sorted(files) if not is_hidden(name))


def visible_files(folder: Path, pattern: str) -> tuple[Path, ...]:
    """Return the files in a folder that fit a pattern, without hidden ones.

    Args:
        folder: Folder to search.
        pattern: Pattern of `pathlib.Path.glob`, such as `"scenes/*.tif"`.

    Returns:
        Paths in sorted order.
    """
    found = sorted(folder.glob(pattern))
    return tuple(path for path in found if not is_hidden(path.relative_to(folder)))


def is_remote(name: str) -> bool:
    """Return whether a name for GDAL, or a URL, stands for something read over a network."""
    return any(prefix in name for prefix in ("://", *_VSI_PREFIXES[:-1]))


def without_signature(name: str) -> str:
    """Return a URL without what signs it for some time: it identifies what the URL returns.

    Args:
        name: URL, name for GDAL such as `/vsicurl/https://...`, or local path.

    Returns:
        The name without credentials and without the query parameters that AWS, Azure, Google
        and others sign URLs with. Other parameters stay, for they may choose the file. A local
        path is returned unchanged.

    Examples:
        >>> without_signature("/vsicurl/https://host/B02.tif?band=1&se=2024&sig=abc")
        '/vsicurl/https://host/B02.tif?band=1'
    """
    if not is_remote(name):
        return name
    base, mark, query = _without_user(name).partition("?")
    if not mark:
        return base
    pairs = parse_qsl(query, keep_blank_values=True)
    keys = {key.lower() for key, _ in pairs}
    signing = {key for key in keys if key.startswith(_SIGNATURE_PREFIXES)} | _TOKENS
    if "sig" in keys:
        signing |= _ONLY_BESIDE_SIG
    if "signature" in keys:
        signing |= _ONLY_BESIDE_SIGNATURE
    kept = [(key, value) for key, value in pairs if key.lower() not in signing]
    return f"{base}?{urlencode(kept)}" if kept else base


def redact(text: object) -> str:
    """Return a text, such as a name or an error message, without the secrets in its URLs.

    Args:
        text: Text that may contain URLs or names for GDAL.

    Returns:
        The text with the query and the credentials of every URL left out.
    """
    plain = _URL.sub(lambda match: _without_user(match[0]).partition("?")[0], str(text))
    return _SIGNED_QUERY.sub("", plain)


def gdal_name(href: str, folder: Path, owner: Path) -> str:
    """Return GDAL's name of an asset of a STAC item.

    Args:
        href: URL, `file:` URI or path as the item states it. URIs are decoded; a relative path
            is decoded unless a file of exactly that name exists.
        folder: Folder that relative paths start from.
        owner: File that states the href, for messages.

    Returns:
        A path, or a name that begins with `/vsi`.

    Raises:
        DataError: The href is of another kind, or was written on another system.
    """
    if href.startswith("/vsi"):
        if href.startswith(_VSI_PREFIXES):
            return href
        raise _unsupported(href, owner)
    scheme = urlsplit(href).scheme.lower()
    if scheme in _REMOTE:
        if scheme.startswith("http"):
            return _REMOTE[scheme] + quote(href, safe=_SAFE_IN_URLS)
        return _REMOTE[scheme] + href.partition("://")[2]
    if scheme == "file":
        return _file_path(href, folder, owner)
    if "://" in href:
        raise _unsupported(href, owner)
    if sys.platform != "win32" and ("\\" in href or PureWindowsPath(href).drive):
        return _windows_path(href, folder, owner)
    return _decoded(folder / unquote(href), folder / href)  # an absolute path stays as it is


def _file_path(href: str, folder: Path, owner: Path) -> str:
    rest = href[len("file:") :]
    host = ""
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    if host.lower() not in ("", "localhost"):
        if sys.platform != "win32":
            raise DataError(
                f"{owner} has an asset at {href}, a file of the host {host}. Expected a file of "
                f"this machine. Mount the folder of {host} here, and write its path in the item."
            )
        return str(Path(f"//{host}{unquote(rest)}"))
    if PureWindowsPath(rest.lstrip("/")).drive and sys.platform != "win32":
        return _windows_path(rest.lstrip("/"), folder, owner)
    if sys.platform == "win32":
        rest = rest.lstrip("/")
    return _decoded(folder / unquote(rest), folder / rest)


def _windows_path(href: str, folder: Path, owner: Path) -> str:
    if PureWindowsPath(href).drive:
        raise DataError(
            f"{owner} has an asset at {href}, a path written on Windows. Expected a path of this "
            "machine. Write the paths in the item relative to its file."
        )
    return _decoded(folder / PureWindowsPath(unquote(href)).as_posix(), folder / href)


def _decoded(path: Path, literal: Path) -> str:
    """Return a decoded path, unless only the literal one exists."""
    return str(literal if literal.exists() and not path.exists() else path)


def _unsupported(href: str, owner: Path) -> DataError:
    return DataError(
        f"{owner} has an asset at {redact(href)}. Expected a file, or a URL of "
        f"{', '.join(_REMOTE)}."
    )


def _without_user(name: str) -> str:
    prefix, url = ("/vsicurl/", name[9:]) if name.startswith("/vsicurl/") else ("", name)
    if "://" not in url:
        return name
    parts = urlsplit(url)
    return prefix + urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
