import functools
import hashlib
import http.server
import stat
import threading
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
    """URL of a server on this machine, and what was asked of it."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
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


def test_home_is_what_the_variable_says_or_the_users_cache(own_home, monkeypatch):
    assert home() == own_home
    monkeypatch.delenv("SITS_KERAS_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/a/cache")
    assert home().name == "sits_keras"


def test_urls_are_told_from_names_and_paths():
    assert all(map(is_url, ("https://a/b.zip", "http://a", "file:///a.zip")))
    assert not any(map(is_url, ("sits_rgbn_small", "a/b", "/a/b", "C:\\a", "s3://a")))


@pytest.mark.parametrize("with_checksum", [False, True])
def test_an_archive_is_fetched_once(with_checksum, site, archive, own_home):
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


def test_a_file_needs_no_server(archive):
    url = archive.as_uri()
    assert (fetch(url) / "one/preset.json").is_file()
    assert (fetch(f"{url}#sha256={sha256(archive)}") / "one/preset.json").is_file()
    with pytest.raises(DataError, match=f"has the checksum {sha256(archive)}, expected {'0' * 64}"):
        fetch(f"{url}#sha256={'0' * 64}")
    with pytest.raises(DataError, match=r"there is no file"):
        fetch("file:///missing.zip")


def test_another_checksum_is_refused(site, own_home):
    with pytest.raises(DataError, match=f"its checksum is not {'0' * 64}. Ask whoever"):
        fetch(f"{site[0]}/preset%20one.zip#sha256={'0' * 64}")
    assert not list((own_home / "fetched").iterdir())


def test_what_is_not_there_is_told(site):
    with pytest.raises(DataError, match=r"other.zip cannot be fetched: 404"):
        fetch(f"{site[0]}/other.zip")


def test_what_can_be_altered_on_its_way_needs_a_checksum():
    with pytest.raises(
        ConfigError, match=r"altered on its way. Use https://, or append .*#sha256="
    ):
        fetch("http://example.org/preset.zip")
    with pytest.raises(ConfigError, match=r"Expected #sha256=<64 hexadecimal digits>"):
        fetch("https://example.org/preset.zip#md5=0")


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "c:out", "..\\out"])
def test_names_that_lead_out_are_refused(name, tmp_path, own_home):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("preset.json", "{}")
        opened.writestr(name, "x")
    with pytest.raises(DataError, match=r"would leave the folder"):
        fetch(path.as_uri())
    assert not list((own_home / "fetched").iterdir())
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path):
    path = tmp_path / "bad.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(link, "/etc")
    with pytest.raises(DataError, match=r"is no plain file"):
        fetch(path.as_uri())


def test_archives_that_would_fill_the_disk_are_refused(archive, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 3001)
    with pytest.raises(DataError, match=r"would unpack to more than 3,001 bytes"):
        fetch(archive.as_uri())


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_archive_is_told(damage, archive):
    content = archive.read_bytes()
    archive.write_bytes(content[:-40] if damage == "cut" else b"<html>")
    with pytest.raises(DataError, match=r"cannot be unpacked: .*Expected a zip archive"):
        fetch(archive.as_uri())
