"""Presets on Hugging Face and Kaggle: handles, download and upload.

`hf://owner/name`, `hf://owner/name@revision` and `kaggle://owner/model/framework/variation`, with
or without `/version`, are fetched by the clients of these hosts, huggingface_hub and kagglehub.
They show progress, resume after a lost connection and keep the files in caches of their own. Only
handles that are passed are fetched. A handle can end in `#sha256=` with the checksum of its
`preset.json`, which lists the checksums of all files that are loaded.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sits_keras.errors import ConfigError, DataError, MissingError, SitsKerasError
from sits_keras.files import sha256_of
from sits_keras.formats import MODEL_NAME, PRESET, PROJECTION_NAME

_HF = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_KAGGLE = re.compile(r"kaggle://([\w-]+/[\w-]+/\w+/[\w.-]+(?:/\d+)?)")
_EXPECTED = (
    "Expected hf://owner/name, hf://owner/name@revision or "
    "kaggle://owner/model/framework/variation, and optionally #sha256=<64 hexadecimal digits>"
)
_FILES = ["*.json", "*.md", MODEL_NAME, PROJECTION_NAME, "*_layers.onnx", "*_encoder/*"]
_CLIENTS = {"hf": ("huggingface_hub", "hf"), "kaggle": ("kagglehub", "kaggle")}

Check = Callable[[Path], Any]


def is_handle(text: str) -> bool:
    """Return whether a text is a handle of Hugging Face or Kaggle."""
    return text.startswith(("hf://", "kaggle://"))


def fetch_handle(handle: str, check: Check) -> Path:
    """Download a preset, unless the client's cache contains it.

    Args:
        handle: Handle of the preset.
        check: Function that raises `DataError` if a folder is not an undamaged preset.

    Returns:
        The folder, in the cache of the client. Not to be modified.

    Raises:
        ConfigError: The handle is malformed.
        MissingError: The client is not installed, or the host has no such model.
        DataError: The download failed, or a file differs from its checksum. Nothing is kept of a
            preset that is damaged.
    """
    kind, name, revision, checksum = _parse(handle)
    client = _import_client(kind)
    try:
        if kind == "hf":
            folder = Path(client.snapshot_download(name, revision=revision, allow_patterns=_FILES))
        else:
            folder = Path(client.model_download(name))
    except Exception as error:  # of several HTTP libraries, by client and version
        raise _describe_failure(handle, error) from error
    try:
        if checksum is not None:
            _check_description(folder, checksum)
        check(folder)
    except DataError as error:
        _forget(kind, client, folder)
        raise DataError(f"{handle} is refused, and its files were removed: {error}") from error
    return folder


def upload(folder: Path, handle: str, license_id: str | None) -> str:
    """Upload a folder with the account that the client of the host is logged in to.

    Args:
        folder: Folder of a preset.
        handle: Handle without revision, version and checksum.
        license_id: SPDX identifier of the weights' licence.

    Returns:
        The handle with the checksum of `preset.json`.

    Raises:
        ConfigError: The handle is malformed, or names a revision or a checksum.
        MissingError: The client is not installed, or the login is missing.
        DataError: The upload failed.
    """
    kind, name, revision, checksum = _parse(handle)
    if revision or checksum or (kind == "kaggle" and name.count("/") > 3):
        raise ConfigError(
            "An upload makes a new version. Expected a handle without version and checksum. "
            f"Received: {handle}."
        )
    client = _import_client(kind)
    try:
        if kind == "hf":
            api = client.HfApi()
            api.create_repo(name, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=_FILES)
        else:
            client.model_upload(name, str(folder), license_name=license_id)
    except Exception as error:
        raise _describe_failure(handle, error) from error
    return f"{handle}#sha256={sha256_of(folder / PRESET.file)}"


def _parse(handle: str) -> tuple[str, str, str | None, str | None]:
    """Return the kind, name, revision and checksum of a handle."""
    address, mark, fragment = handle.partition("#")
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not mark or found:
        checksum = found[1].lower() if found else None
        if match := _HF.fullmatch(address):
            return "hf", match[1], match[2], checksum
        if match := _KAGGLE.fullmatch(address):
            return "kaggle", match[1], None, checksum
    raise ConfigError(f"{_EXPECTED}. Received: {handle}.")


def _import_client(kind: str) -> ModuleType:
    library, extra = _CLIENTS[kind]
    client: ModuleType
    try:
        if kind == "hf":
            import huggingface_hub

            client = huggingface_hub
        else:
            import kagglehub

            client = kagglehub
    except ImportError as error:
        raise MissingError(
            f"{kind}:// needs {library}, which is not installed: pip install 'sits_keras[{extra}]'."
        ) from error
    return client


def _check_description(folder: Path, checksum: str) -> None:
    file = folder / PRESET.file
    found = sha256_of(file) if file.is_file() else "no such file"
    if found != checksum:
        raise DataError(
            f"{PRESET.file} differs from the handle. Expected: sha256 {checksum}. "
            f"Received: {found}."
        )


def _forget(kind: str, client: ModuleType, folder: Path) -> None:
    """Remove a snapshot from the cache of its client."""
    if kind == "hf":
        cache = folder.parents[2]  # of CACHE/models--owner--name/snapshots/commit
        client.scan_cache_dir(cache).delete_revisions(folder.name).execute()
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.complete").unlink(missing_ok=True)


def _describe_failure(handle: str, error: Exception) -> SitsKerasError:
    """Make the error for a failed call of a client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if status in (401, 403, 404):
        return MissingError(
            f"{handle} was not found, or needs a login ({status}): {cause}. Check the handle, and "
            "log in with `hf auth login` or `kagglehub.login()`."
        )
    return DataError(
        f"{handle} cannot be transferred: {cause}. Repeat the command: complete files are kept."
    )
