import zipfile

import numpy as np
import pytest

from sits_keras.bands import UNNAMED_BANDS
from sits_keras.data import chips
from sits_keras.data.chips import find_chips, read_chips
from sits_keras.errors import ConfigError, DataError, MissingError

RGB = ("B04", "B03", "B02")


def read_all(path, bands=RGB):
    source = find_chips(path)
    return list(read_chips(source, source.names, bands))


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


@pytest.mark.parametrize("target", ["set", "set.zip"])
@pytest.mark.parametrize("prefix", ["", "a/b/c/"])
def test_find_chips_lists_chips_at_any_depth(target, prefix, write_chips, tmp_path):
    source = find_chips(write_chips(tmp_path / target, count=2, prefix=prefix))
    assert source.kind == "picture"
    assert source.names == tuple(
        f"{prefix}{name}/{name}_{n}.jpg" for name in ("Forest", "River") for n in (1, 2)
    )
    assert source.empty == ()


def test_find_chips_other_and_hidden_files_are_passed_over(write_chips, picture, tmp_path):
    path = write_chips(tmp_path / "set", count=1)
    for name in (".DS_Store", "readme.txt", "2750/Forest/._Forest_1.jpg", ".git/a.jpg"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no picture")
    (path / "__MACOSX").mkdir()
    (path / "__MACOSX" / "a.jpg").write_bytes(b"no picture")
    assert len(read_all(path)) == 2


def test_find_chips_in_an_archive_made_on_windows(write_chips, tmp_path):
    folder = write_chips(tmp_path / "set", count=1)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            entry = zipfile.ZipInfo("x")
            entry.filename = str(file.relative_to(tmp_path)).replace("/", "\\")
            archive.writestr(entry, file.read_bytes())
    names = find_chips(tmp_path / "set.zip").names
    assert names == tuple(f"set/{name}" for name in find_chips(folder).names)
    assert len(read_all(tmp_path / "set.zip")) == 2


def test_read_chips_picture_is_red_green_and_blue(picture, tmp_path):
    pixels = np.zeros((64, 64, 3))
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 10, 20, 30
    pixels[5, 7] = 200, 100, 50
    for suffix in ("png", "PNG"):
        (tmp_path / f"a.{suffix}").write_bytes(picture(pixels, "png"))
        (chip,) = read_all(tmp_path)
        np.testing.assert_array_equal(chip.values, pixels)
        assert chip.values.dtype == np.uint8
        assert chip.grid is None
        (tmp_path / f"a.{suffix}").unlink()
    (tmp_path / "a.png").write_bytes(picture(pixels, "png"))
    (chip,) = read_all(tmp_path, ("B02", "B04"))
    np.testing.assert_array_equal(chip.values[5, 7], [50, 200])


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_chips_bands_without_names_are_in_eurosats_order(target, write_chips, tmp_path):
    path = write_chips(tmp_path / target, {"A": (0, 0, 0)}, count=2, kind="tif")
    first, second = read_all(path, ("B8A", "B02", "B12", "B08", "B01"))
    # B8A is the thirteenth, B02 the second, B12 the twelfth, B08 the eighth, B01 the first.
    assert (first.values == [1300, 200, 1200, 800, 100]).all()
    assert (second.values == [1301, 201, 1201, 801, 101]).all()
    assert first.values.dtype == np.uint16
    assert first.grid.crs == "EPSG:32632"
    assert second.grid.transform[2] == 105_000


def test_read_chips_bands_that_have_names_are_found_by_them(geotiff, tmp_path):
    names = ("B08", "B04", "B03", "B02")
    (tmp_path / "a.tif").write_bytes(geotiff(0, bands=names, count=4))
    (chip,) = read_all(tmp_path, ("B02", "B08"))
    assert (chip.values == [400, 100]).all()
    # All 13, but named in another order than EuroSAT's.
    (tmp_path / "a.tif").write_bytes(geotiff(0, bands=UNNAMED_BANDS[::-1]))
    (chip,) = read_all(tmp_path, ("B8A", "B01"))
    assert (chip.values == [100, 1300]).all()


@pytest.mark.parametrize(
    ("options", "bands", "message"),
    [
        (
            {},
            ("B02", "B99"),
            "has no band B99. Its bands have no names, and are assumed to be B01,",
        ),
        ({"count": 3}, ("B02",), "has 3 bands without names, expected 1: B02"),
        ({"count": 2, "bands": ("B02", "B03")}, ("B04",), "has no band B04. It has: B02, B03"),
        ({"size": 65}, ("B02",), "has 65 x 65 pixels. Expected 64 x 64"),
    ],
)
@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_chips_wrong_geotiff_is_named(target, options, bands, message, geotiff, tmp_path):
    if target == "set":
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.tif").write_bytes(geotiff(0, **options))
        name = str(tmp_path / "set" / "a.tif")
    else:
        zip_of(tmp_path / target, **{"a.tif": geotiff(0, **options)})
        name = f"{tmp_path / target}, a.tif,"
    with pytest.raises(DataError) as error:
        read_all(tmp_path / target, bands)
    assert str(error.value).startswith(f"{name} {message}")


def test_read_chips_truncated_geotiff_in_an_archive_is_named(geotiff, tmp_path):
    path = zip_of(tmp_path / "set.zip", Forest__a=b"", **{"Forest/a.tif": geotiff(0)[:200]})
    with pytest.raises(DataError, match=r"set\.zip, Forest/a\.tif, cannot be read: "):
        read_all(path, ("B02",))


@pytest.mark.parametrize("content", [b"", b"no picture", None])
@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_chips_damaged_picture_is_named(target, content, picture, tmp_path):
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
        content = picture(noise)[:1000]
    if target == "set":
        (tmp_path / "set" / "Forest").mkdir(parents=True)
        (tmp_path / "set" / "Forest" / "a.jpg").write_bytes(content)
    else:
        zip_of(tmp_path / target, **{"Forest/a.jpg": content})
    with pytest.raises(DataError, match=r"Forest/a\.jpg,? cannot be read: .*fetch it again\.$"):
        read_all(tmp_path / target)


def test_read_chips_damaged_member_is_named(picture, tmp_path):
    content = picture(np.zeros((64, 64, 3)))
    path = zip_of(tmp_path / "set.zip", **{"Forest/a.jpg": content})
    whole = path.read_bytes()
    at = whole.index(content) + len(content) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"set\.zip, Forest/a\.jpg, cannot be read: Bad CRC-32"):
        read_all(path)


def test_read_chips_pictures_of_another_size_or_kind_are_refused(picture, tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(np.zeros((32, 64, 3))))
    with pytest.raises(DataError, match=r"a\.jpg has 32 x 64 pixels\. Expected 64 x 64"):
        read_all(tmp_path)
    (tmp_path / "a.jpg").write_bytes(picture(np.zeros((64, 64))))
    with pytest.raises(DataError, match=r"a\.jpg is a picture of mode L\. Expected RGB of 8 bits"):
        read_all(tmp_path)


def test_read_chips_picture_made_to_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path, picture
):
    # 20,000 x 20,000 pixels, of which the file holds the header alone.
    header = bytearray(picture(np.zeros((64, 64, 3)), "png"))
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    crc = zipfile.crc32(bytes(header[12:29]))
    header[29:33] = crc.to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(header))
    with pytest.raises(DataError, match=r"a\.png (has 20000 x 20000 pixels|cannot be read)"):
        read_all(tmp_path)


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_chips_file_too_large_for_a_chip_is_refused(target, tmp_path, monkeypatch):
    monkeypatch.setattr(chips, "MAX_CHIP_BYTES", 1000)
    if target == "set":
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.jpg").write_bytes(bytes(1001))
    else:
        with zipfile.ZipFile(tmp_path / target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jpg", bytes(1001))  # some 20 bytes in the archive
    with pytest.raises(DataError, match=r"a\.jpg,? has 1,001 bytes\. Expected at most 1,000"):
        read_all(tmp_path / target)


def test_read_chips_members_name_leads_nowhere(geotiff, tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    absolute = str(tmp_path / "absolute" / "b.tif")
    path = zip_of(folder / "set.zip", **{"../../evil/a.tif": geotiff(0), absolute: geotiff(1)})
    before = sorted(tmp_path.rglob("*"))
    found = sorted(int(chip.values[0, 0, 0]) for chip in read_all(path, ("B02",)))
    assert found == [200, 201]
    assert sorted(tmp_path.rglob("*")) == before


def test_find_chips_folder_without_chips_is_refused(tmp_path, picture):
    with pytest.raises(
        MissingError, match=r"No file or folder at .*gone\. Expected a folder or \.zip"
    ):
        find_chips(tmp_path / "gone")
    with pytest.raises(
        DataError, match=r"does not contain chips\. Expected files \.jpeg, \.jpg, \.png, \.tif"
    ):
        find_chips(tmp_path)
    (tmp_path / "set.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"set\.zip is not a zip archive, or is truncated"):
        find_chips(tmp_path / "set.zip")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"pictures and GeoTIFFs, such as a\.jpg and b\.tif"):
        find_chips(tmp_path)


def test_read_chips_pictures_show_no_infrared(write_chips, tmp_path):
    path = write_chips(tmp_path / "set.zip")
    with pytest.raises(ConfigError, match=r"show B04, B03, B02\. Received: B08"):
        read_all(path, ("B04", "B08"))
