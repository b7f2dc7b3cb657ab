from pathlib import Path

import pytest

from sits_keras.data.sources.paths import (
    gdal_name,
    is_hidden,
    list_folder,
    redact,
    visible_files,
    walk_folder,
    without_signature,
)
from sits_keras.errors import DataError

SIGNATURES = [
    "sv=2021-06-08&st=2024-01-01&se=2024-01-02&sr=c&sp=rl&sig=s3cr3t%3D&skoid=1&sktid=2",
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=s3cr3t&X-Amz-Date=1&X-Amz-Signature=2",
    "X-Goog-Algorithm=GOOG4&X-Goog-Credential=s3cr3t&X-Goog-Expires=60&X-Goog-Signature=2",
    "Expires=1&Signature=s3cr3t&Key-Pair-Id=2&Policy=3",
    "AWSAccessKeyId=1&Signature=s3cr3t&Expires=2",
    "token=s3cr3t",
    "access_token=s3cr3t",
]


@pytest.mark.parametrize("query", SIGNATURES)
@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_without_signature_of_a_signed_url_is_the_plain_url(query, prefix):
    url = f"{prefix}https://user:s3cr3t@host/a%20b/B02.tif"
    plain = f"{prefix}https://host/a%20b/B02.tif"
    assert without_signature(f"{url}?{query}") == plain
    assert without_signature(f"{url}?band=2&{query}&path=x") == f"{plain}?band=2&path=x"
    assert redact(f"{url}?{query}") == plain
    assert redact(f"'{url}?{query}': HTTP 403") == f"'{plain}': HTTP 403"


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/https://host/B02?band=1",
        "https://host/B02?sp=1&st=2",  # signed by nothing
        "https://host/B02?expires=never",
        "/data/what?sig=1.tif",
        "/vsizip/{/data/a.zip}/B02.jp2",
        "/vsis3/bucket/B02.tif",
    ],
)
def test_without_signature_unsigned_name_is_kept(name):
    assert without_signature(name) == name


def test_redact_leaves_the_rest_of_a_text():
    text = "no URL, and /vsis3/bucket/a.tif?x=1 or s3://bucket/b.tif: is it?"
    assert redact(text) == "no URL, and /vsis3/bucket/a.tif or s3://bucket/b.tif: is it?"


@pytest.mark.parametrize(
    "name",
    [
        "._2020-04-21.tif",
        "lake/._2020-04-21.tif",
        ".snapshot/lake/2020-04-21.tif",
        "__MACOSX/2020-04-21.tif",
        "__MACOSX\\a\\2020-04-21.tif",
        "@eaDir/2020-04-21.tif",
        "lake/@eaDir/2020-04-21.tif/SYNOPHOTO_THUMB.tif",
        "Thumbs.db",
        "$RECYCLE.BIN/2020-04-21.tif",
        "2020-04-21.tif.part",
        "2020-04-21.tif~",
        "~$2020-04-21.tif",
        ".partial-2020-04-21.tif",
        ".ipynb_checkpoints/2020-04-21.tif",
    ],
)
def test_is_hidden_of_files_that_no_user_means(name):
    assert is_hidden(name)


@pytest.mark.parametrize(
    "name",
    ["2020-04-21.tif", "a/b.tif", "./a.tif", "../a.tif", "a..b.tif", "lake.part/", "old~/a.tif"],
)
def test_is_hidden_of_ordinary_files_is_false(name):
    assert not is_hidden(name)


def test_listings_pass_over_hidden_files_and_folders(tmp_path):
    for name in ("b/x.tif", "a.tif", "._a.tif", "@eaDir/a.tif", "b/.c/x.tif", "b/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_folder(tmp_path)] == ["a.tif", "b"]
    assert [str(path.relative_to(tmp_path)) for path in walk_folder(tmp_path)] == [
        "a.tif",
        "b/x.tif",
    ]
    assert visible_files(tmp_path, "*.tif") == (tmp_path / "a.tif",)
    assert visible_files(tmp_path, "*/*.tif") == (tmp_path / "b/x.tif",)


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("file:///data/my%20data/%C3%A9t%C3%A9/B02.tif", "/data/my data/été/B02.tif"),
        ("file:///data/a#b.tif", "/data/a#b.tif"),
        ("file:///data/50%25.tif", "/data/50%.tif"),
        ("file://localhost/data/B02.tif", "/data/B02.tif"),
        ("file:/data/B02.tif", "/data/B02.tif"),
        ("FILE:///data/B02.tif", "/data/B02.tif"),
        ("B02.tif", "/cat/B02.tif"),
        ("./my%20data/B02.tif", "/cat/my data/B02.tif"),
        ("my data/B02.tif", "/cat/my data/B02.tif"),
        (".\\R10m\\B02.tif", "/cat/R10m/B02.tif"),
        ("/data/B02.tif", "/data/B02.tif"),
        ("https://host/a b/é.tif?x=1&y=2", "/vsicurl/https://host/a%20b/%C3%A9.tif?x=1&y=2"),
        ("https://host/a%20b.tif", "/vsicurl/https://host/a%20b.tif"),
        ("s3://bucket/B02.tif", "/vsis3/bucket/B02.tif"),
        ("gs://bucket/B02.tif", "/vsigs/bucket/B02.tif"),
        ("/vsicurl/https://host/B02.tif", "/vsicurl/https://host/B02.tif"),
        ("/vsiaz/container/B02.tif", "/vsiaz/container/B02.tif"),
    ],
)
def test_gdal_name_of_an_href_is_decoded(href, expected):
    assert gdal_name(href, Path("/cat"), Path("/cat/search.json")) == expected


def test_gdal_name_keeps_percent_signs_that_a_file_is_named_with(tmp_path):
    (tmp_path / "my%20data.tif").touch()
    owner = tmp_path / "search.json"
    assert gdal_name("my%20data.tif", tmp_path, owner) == str(tmp_path / "my%20data.tif")
    (tmp_path / "my data.tif").touch()
    assert gdal_name("my%20data.tif", tmp_path, owner) == str(tmp_path / "my data.tif")


@pytest.mark.parametrize(
    ("href", "message"),
    [
        ("file://server/share/B02.tif", "a file of the host server.* Mount the folder"),
        ("C:\\data\\B02.tif", "a path written on Windows"),
        ("file:///C:/data/B02.tif", "a path written on Windows"),
        ("ftp://host/B02.tif?token=s3cr3t", r"asset at ftp://host/B02\.tif\. Expected a file"),
        ("/vsistdin/", "Expected a file, or a URL of http"),
    ],
)
def test_gdal_name_of_unreadable_file_is_refused(href, message):
    with pytest.raises(DataError, match=message) as error:
        gdal_name(href, Path("/cat"), Path("/cat/search.json"))
    assert "s3cr3t" not in str(error.value)
