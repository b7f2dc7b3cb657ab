"""A local stand-in for Hugging Face and Kaggle: what their clients ask for to load a model.

It answers the requests of huggingface_hub 2.4 and kagglehub 1.0 for one model on each host.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

HF_NAME, KAGGLE_NAME = "maps/tiny", "maps/tiny/keras/small"


class Hosts:
    """State of both hosts.

    Attributes:
        address: URL of the server.
        files: Content of the files of the model, which both hosts serve.
        cut: For a file name, the number of bytes after which its connection is cut. Later requests
            for it are refused until the name is removed, unless `recovers` is set.
        recovers: Serve the whole file after the connection was cut once.
        asked: Method, path and range of each request.
        versions: Number of uploads.
    """

    def __init__(self) -> None:
        self.address = ""
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.recovers = False
        self.asked: list[tuple[str, str, str | None]] = []
        self.versions = 1
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.is_created = True

    @property
    def commit(self) -> str:
        """Identifier of the current commit, 40 digits."""
        names = sorted(self.files)
        content = b"".join(name.encode() + self.files[name] for name in names)
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    hosts: Hosts
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _note(self) -> tuple[str, bytes]:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hosts.asked.append((self.command, path, self.headers.get("Range")))
        return path, self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, values: Any, status: int = 200, error_code: str | None = None) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        if error_code:
            self.send_header("X-Error-Code", error_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_file(self, name: str) -> None:
        content = self.hosts.files.get(name)
        if content is None:
            self._send({"error": "not found"}, 404)
            return
        limit = self.hosts.cut.get(name)
        if limit is not None and limit < 0 and self.command != "HEAD":
            self._send({"error": "busy"}, 500)
            return
        begin = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            begin = int(found[1])
        self.send_response(206 if begin else 200)
        etag = hashlib.sha256(content).hexdigest()
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.hosts.commit)
        self.send_header("Accept-Ranges", "bytes")
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        self.send_header("x-goog-hash", f"md5={md5}")
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {begin}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if limit is None:
            self.wfile.write(content[begin:])
            return
        self.hosts.cut[name] = -1
        if self.hosts.recovers:
            del self.hosts.cut[name]
        self.wfile.write(content[begin : begin + limit])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def do_HEAD(self) -> None:
        path, _ = self._note()
        self._send_file(path.split(f"/{HF_NAME}/resolve/")[-1].split("/", 1)[-1])

    def do_GET(self) -> None:
        hosts, (path, _) = self.hosts, self._note()
        model = f"/api/models/{HF_NAME}"
        if path.startswith(f"{model}/tree/"):
            self._send(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in hosts.files.items()
                ]
            )
        elif path == model or path.startswith(f"{model}/revision/"):
            siblings = [{"rfilename": name} for name in hosts.files]
            self._send({"id": HF_NAME, "sha": hosts.commit, "siblings": siblings, "tags": []})
        elif path.startswith(f"/{HF_NAME}/resolve/"):
            self._send_file(path.split("/resolve/")[1].split("/", 1)[1])
        elif path.startswith("/kaggle/"):
            self._send_file(path.removeprefix("/kaggle/"))
        else:
            self._send({"error": "Repository not found"}, 404, "RepoNotFound")

    def do_POST(self) -> None:
        path, body = self._note()
        if "/v1/models." in path or "/v1/blobs." in path:
            self._answer_kaggle(path.rsplit("/", 1)[1], json.loads(body))
        elif path == "/api/repos/create":
            self._send({"url": f"{self.hosts.address}/{HF_NAME}", "name": HF_NAME})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in files
            ]
            self._send({"files": modes})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hosts.files[line["value"]["path"]] = content
            url = f"{self.hosts.address}/{HF_NAME}/commit/{self.hosts.commit}"
            self._send({"success": True, "commitOid": self.hosts.commit, "commitUrl": url})
        else:
            self._send({"error": f"unknown: {path}"}, 404)

    def _answer_kaggle(self, method: str, values: dict[str, Any]) -> None:
        hosts = self.hosts
        if method == "GetModelInstance":
            self._send({"versionNumber": hosts.versions})
        elif method == "ListModelInstanceVersionFiles":
            files = [{"name": name, "size": len(one)} for name, one in hosts.files.items()]
            self._send({"files": files, "nextPageToken": ""})
        elif method == "DownloadModelInstanceVersion":
            self.send_response(302)
            self.send_header("Location", f"{hosts.address}/kaggle/{values['path']}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif method == "GetModel":
            self._send({"id": 1} if hosts.is_created else {"code": 404, "message": "none"})
        elif method == "StartBlobUpload":
            token = f"blob-{len(hosts.names)}"
            hosts.names[token] = values["name"]
            self._send({"token": token, "createUrl": f"{hosts.address}/blob/{token}"})
        elif method in ("CreateModelInstance", "CreateModelInstanceVersion"):
            hosts.versions += 1
            hosts.files = dict(_list_blobs(values["body"], hosts))
            self._send({"id": 1, "url": ""})
        else:
            self._send({"code": 404, "message": f"unknown: {method}"}, 404)

    def do_PUT(self) -> None:
        path, body = self._note()
        self.hosts.blobs[path.rsplit("/", 1)[1]] = body
        self._send({})


def _list_blobs(
    folder: dict[str, Any], hosts: Hosts, prefix: str = ""
) -> Iterator[tuple[str, bytes]]:
    for file in folder.get("files") or ():
        token = file["token"]
        yield prefix + hosts.names[token], hosts.blobs[token]
    for inner in folder.get("directories") or ():
        yield from _list_blobs(inner, hosts, f"{prefix}{inner['name']}/")


@contextlib.contextmanager
def serve() -> Iterator[Hosts]:
    """Serve both hosts on a port of this machine."""
    hosts = Hosts()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"hosts": hosts})
    )
    hosts.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hosts
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
