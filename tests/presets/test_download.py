import errno
import functools
import hashlib
import http.server
import random
import stat
import threading
import traceback
import zipfile

import pytest

from sits_keras.errors import ConfigError, DataError
from sits_keras.presets import download
from sits_keras.presets.download import fetch, home, is_url


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SITS_KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "site" / "preset one.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("one/preset.json", "{}")
        opened.writestr("one/deep/er/file", b"x" * 3000)
    return path


@pytest.fixture
def site(archive):
    """URL of a server on this machine, and the requests that it received.

    A path that begins with a status, such as `/403/preset.zip`, is answered with that status.
    """
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            status = self.path.split("/")[1]
            if status.isdigit():
                self.send_error(int(status), "Request has expired")
            else:
                super().do_GET()

        def log_message(self, *arguments):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(archive.parent))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_home_without_variable_is_the_user_cache(own_home, monkeypatch):
    assert home() == own_home
    monkeypatch.delenv("SITS_KERAS_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/a/cache")
    assert home().name == "sits_keras"


def test_is_url_of_names_and_paths_is_false():
    assert all(map(is_url, ("https://a/b.zip", "http://a", "file:///a.zip")))
    assert not any(map(is_url, ("sits_rgbn_small", "a/b", "/a/b", "C:\\a", "s3://a")))


@pytest.mark.parametrize("with_checksum", [False, True])
def test_fetch_called_twice_downloads_once(with_checksum, site, archive, own_home):
    address, asked = site
    url = f"{address}/preset%20one.zip"
    if with_checksum:
        url += f"#sha256={sha256(archive).upper()}"
    folder = fetch(url)
    assert folder.is_relative_to(own_home)
    assert (folder / "one/deep/er/file").read_bytes() == b"x" * 3000
    assert fetch(url) == folder
    assert asked == ["/preset%20one.zip"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing left over


def test_fetch_of_a_file_url_reads_the_file(archive):
    url = archive.as_uri()
    assert (fetch(url) / "one/preset.json").is_file()
    assert (fetch(f"{url}#sha256={sha256(archive)}") / "one/preset.json").is_file()
    with pytest.raises(
        DataError, match=f"has another checksum.*{'0' * 64}. Received: {sha256(archive)}"
    ):
        fetch(f"{url}#sha256={'0' * 64}")
    with pytest.raises(DataError, match=r"no file at /missing.zip"):
        fetch("file:///missing.zip")


def test_fetch_with_another_checksum_raises(site, own_home):
    with pytest.raises(DataError, match=f"its checksum is not {'0' * 64}. Ask its publisher"):
        fetch(f"{site[0]}/preset%20one.zip#sha256={'0' * 64}")
    assert not list((own_home / "fetched").iterdir())


def test_fetch_of_a_missing_file_raises(site):
    with pytest.raises(
        DataError, match=r"other.zip cannot be fetched: the server has no such file \(404\). Check"
    ):
        fetch(f"{site[0]}/other.zip")


def test_fetch_over_http_without_checksum_raises():
    with pytest.raises(
        ConfigError, match=r"could be altered on its way. Use https://, or append .*#sha256="
    ):
        fetch("http://example.org/preset.zip")
    with pytest.raises(ConfigError, match=r"Expected #sha256=<64 hexadecimal digits>"):
        fetch("https://example.org/preset.zip#md5=0")


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "c:out", "..\\out"])
def test_fetch_of_members_outside_the_folder_raises(name, tmp_path, own_home):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("preset.json", "{}")
        opened.writestr(name, "x")
    with pytest.raises(DataError, match=r"would leave the folder"):
        fetch(path.as_uri())
    assert not list((own_home / "fetched").iterdir())
    assert not (tmp_path / "out").exists()


def test_fetch_of_links_raises(tmp_path):
    path = tmp_path / "bad.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(link, "/etc")
    with pytest.raises(DataError, match=r"is not a regular file"):
        fetch(path.as_uri())


def test_fetch_of_a_too_large_archive_raises(archive, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 3001)
    with pytest.raises(DataError, match=r"would extract to more than 3,001 bytes"):
        fetch(archive.as_uri())


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "it is damaged, possibly truncated; fetch it again"),
        (b"", "it is empty; fetch it again"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "it is a web page or a message of the server"),
        (b'{"error": "expired"}', "it is a web page or a message of the server; log in"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer; use the"),
        (b"Rar!", "File is not a zip file"),
    ],
)
def test_fetch_of_another_kind_of_file_names_the_kind(content, cause, archive):
    archive.write_bytes(archive.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=f"cannot be extracted: {cause}.*Expected a zip archive"):
        fetch(archive.as_uri())


def test_fetch_on_a_full_disk_does_not_blame_the_archive(archive, monkeypatch):
    def extractall(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", extractall)
    with pytest.raises(OSError, match="No space left") as told:
        fetch(archive.as_uri())
    assert not isinstance(told.value, DataError)


def test_fetch_of_an_archive_written_on_windows_has_folders(tmp_path):
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("one/preset.json", "{}")
    path.write_bytes(path.read_bytes().replace(b"one/preset", b"one\\preset"))
    assert (fetch(path.as_uri()) / "one" / "preset.json").is_file()


@pytest.fixture
def cut_site(archive):
    """URL of the archive on a server that closes its first connection halfway, and the ranges."""
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("one/weights", random.Random(0).randbytes(300_000))
    content, ranges = archive.read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin:] if ranges else content[: len(content) // 2])
            ranges.append(asked)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a.zip", ranges
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_with_a_checksum_continues_an_interrupted_download(cut_site, archive, own_home):
    url, ranges = cut_site
    url += f"#sha256={sha256(archive)}"
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch(url)
    (kept,) = (own_home / "fetched").iterdir()
    size = kept.stat().st_size
    assert 100_000 < size <= archive.stat().st_size // 2  # whole buffers
    folder = fetch(url)
    assert (folder / "one/deep/er/file").is_file()
    assert ranges == [None, f"bytes={size}-"]
    assert list((own_home / "fetched").iterdir()) == [folder]


def test_fetch_of_a_kept_part_of_another_archive_is_refused(cut_site, archive, own_home):
    url, _ = cut_site
    url += f"#sha256={sha256(archive)}"
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch(url)
    (kept,) = (own_home / "fetched").iterdir()
    kept.write_bytes(b"x" * kept.stat().st_size)
    with pytest.raises(DataError, match="its checksum is not"):
        fetch(url)
    assert not list((own_home / "fetched").iterdir())
    assert fetch(url).is_dir()


# Signed URLs

SIGNATURES = {
    "Azure": "sv=2024-11-04&se=2026-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=SECRET{}%3D",
    "AWS": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=2026010{}&X-Amz-Signature=SECRET{}",
    "Google": "X-Goog-Date=2026010{}&X-Goog-Expires=900&X-Goog-Signature=SECRET{}",
    "CloudFront": "Expires=176723{}&Signature=SECRET{}&Key-Pair-Id=KEY",
    "token": "token=SECRET{}",
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_fetch_of_a_url_that_was_signed_again_is_not_repeated(kind, site):
    address, asked = site
    urls = [f"{address}/preset%20one.zip?{SIGNATURES[kind].format(n, n)}" for n in (1, 2)]
    assert fetch(urls[0]) == fetch(urls[1])
    assert len(asked) == 1


def test_fetch_of_urls_that_differ_in_another_parameter_is_repeated(site):
    address, asked = site
    urls = [f"{address}/preset%20one.zip?version={n}&sig=a" for n in (1, 2)]
    assert fetch(urls[0]) != fetch(urls[1])
    assert len(asked) == 2


@pytest.mark.parametrize("kind", SIGNATURES)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("403/a.zip", "refuses access (403). The URL may have expired, or need a login. Get a new"),
        ("401/a.zip", "refuses access (401). The URL may have expired, or need a login. Get a new"),
        ("400/a.zip", "refuses access (400). The URL may have expired"),
        ("404/a.zip", "the server has no such file (404). Check the URL."),
        ("429/a.zip", "the server is busy or failing (429). Try again later."),
        ("503/a.zip", "the server is busy or failing (503). Try again later."),
        ("preset%20one.zip#sha256=" + 64 * "0", "its checksum is not 000"),
    ],
)
def test_fetch_that_fails_has_the_remedy_and_no_secret(kind, path, expected, site, caplog, capfd):
    path, mark, fragment = path.partition("#")
    url = f"{site[0]}/{path}?{SIGNATURES[kind].format(1, 1)}{mark}{fragment}"
    with pytest.raises(DataError) as told:
        fetch(url)
    assert expected in str(told.value)
    captured = capfd.readouterr()
    shown = "".join(traceback.format_exception(told.value)) + captured.out + captured.err
    assert "SECRET" not in shown + caplog.text
    assert f"{site[0]}/{path} " in str(told.value)


def test_fetch_that_succeeds_prints_no_secret(site, capfd, caplog):
    fetch(f"{site[0]}/preset%20one.zip?{SIGNATURES['Azure'].format(1)}")
    captured = capfd.readouterr()
    assert "SECRET" not in captured.out + captured.err + caplog.text


def test_fetch_without_a_server_prints_no_secret():
    url = "http://127.0.0.1:9/a.zip?ticket=SECRET"
    with pytest.raises(DataError, match="Check the URL and the network") as told:
        fetch(url)
    assert "SECRET" not in "".join(traceback.format_exception(told.value))


def test_fetch_with_credentials_prints_no_secret():
    for url in ("https://user:SECRET@h/a.zip#md5=0", "http://user:SECRET@example.org/a.zip?t=1"):
        with pytest.raises(ConfigError) as told:
            fetch(url)
        assert "SECRET" not in str(told.value)
