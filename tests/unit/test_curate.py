"""Curation: what is turned away and why, what is written, labels, resuming, and what must never be overwritten."""

import csv
import errno
import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, ImageFilter

import debiaslib
from debiaslib import curate as module
from debiaslib import datasheet, faces, labels, pictures
from debiaslib.__main__ import main
from debiaslib.curate import Face, Filters, Rejected, curate
from debiaslib.errors import InputError

SHARED = Path(debiaslib.__file__).parents[2] / "shared" / "data"
FACELESS = Filters(need_face=False)


def photo(seed: int, *, side: int = 96, tiles: int = 12) -> Image.Image:
    """A sharp picture of coloured tiles, another for every seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (tiles, tiles, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def folder_of(path: Path, **contents: bytes) -> Path:
    """A folder of files; `_dot_` in a keyword stands for a dot, `__` for a slash."""
    for name, data in contents.items():
        target = path / name.replace("_dot_", ".").replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def photos(path: Path, count: int) -> Path:
    return folder_of(path, **{f"{index:02d}_dot_png": encoded(photo(index)) for index in range(count)})


def quiet(source: Path, out: Path, **options):
    return curate(source, out=out, **{"filters": FACELESS, "progress": False, **options})


def rejected(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "rejected.csv").open(encoding="utf-8") as file:
        return {row["file_name"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def widths(out: Path) -> list[int]:
    opened = [Image.open(io.BytesIO(path.read_bytes())) for path in sorted((out / "images").iterdir())]
    return [image.width for image in opened]


def icc_profile(space: bytes, corners: dict[int, tuple[int, int, int]]) -> bytes:
    """A colour profile (ICC version 2, one 8-bit table of 2 points an ink) that gives each corner a Lab colour.

    Keys are corners, the first channel the highest bit; absent ones are black. Lab is 8-bit: L * 2.55, a + 128, b + 128.
    """
    channels = {b"CMYK": 4, b"RGB ": 3}[space]
    identity = struct.pack(">9i", *(65536 * (i in (0, 4, 8)) for i in range(9)))
    table = b"".join(bytes(corners.get(corner, (0, 128, 128))) for corner in range(2**channels))
    straight = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([channels, 3, 2, 0]) + identity + straight * channels + table + straight * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"wtpt": white, b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
            b"cprt": b"text" + bytes(4) + b"none\0"}
    body, directory, at = b"", struct.pack(">I", len(tags)), 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        directory += name + struct.pack(">2I", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = (struct.pack(">I", 128 + len(directory) + len(body)) + bytes(4) + bytes.fromhex("02400000") + b"prtr" + space
              + b"Lab " + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white[8:])
    return header.ljust(128, b"\0") + directory + body


RED_LAB, WHITE_LAB = (136, 208, 195), (255, 128, 128)


# --- decoding: known answers ------------------------------------------------------------------------------------------

def reason_of(data: bytes) -> tuple[str, str]:
    with pytest.raises(Rejected) as error:
        pictures.decode(data)
    return error.value.reason, error.value.detail


def animation() -> bytes:
    return encoded(photo(0), "GIF", save_all=True, append_images=[photo(1)])


BAD = {
    "truncated JPEG": (encoded(photo(0, side=300), "JPEG")[:-2000], "damaged", "truncated"),
    "truncated PNG": (encoded(photo(0))[:-200], "damaged", ""),
    "text": (b"hello, I am a picture", "not a picture", "no picture"),
    "empty file": (b"", "not a picture", "empty"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "not a picture", "export it as JPEG"),
    "animated GIF": (animation(), "animated", "2 frames"),
    "two pages": (encoded(photo(0), "TIFF", save_all=True, append_images=[photo(1)]), "animated", "pages (TIFF)"),
    "CMYK without profile": (encoded(photo(0).convert("CMYK"), "JPEG"), "colours unclear", "CMYK without"),
    "CMYK, broken profile": (encoded(photo(0).convert("CMYK"), "JPEG", icc_profile=b"broken"), "colours unclear", "CMYK"),
    "12 of 16 bits": (encoded(Image.fromarray(np.full((80, 80), 4000, np.uint16))), "colours unclear", "where white lies"),
    "float": (encoded(Image.new("F", (80, 80)), "TIFF"), "colours unclear", "mode F"),
    "black and white": (encoded(photo(0).convert("1")), "colours unclear", "mode 1"),
    "half transparent": (encoded(Image.new("RGBA", (80, 80), (1, 2, 3, 127))), "colours unclear", "100% of the pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_has_its_reason(name):
    data, reason, words = BAD[name]
    said, detail = reason_of(data)
    assert said == reason and words in detail
    assert said in module.REASONS


def test_a_picture_too_large_to_decode_is_turned_away(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert reason_of(encoded(photo(0, side=80)))[0] == "too large"
    assert reason_of(encoded(photo(0, side=200)))[0] == "too large"


GREY = np.tile(np.arange(96, dtype=np.uint8) * 2, (96, 1))


@pytest.mark.parametrize(("data", "expected"), [
    (encoded(photo(0)), np.asarray(photo(0))),
    (encoded(photo(0).convert("RGBA")), np.asarray(photo(0))),
    (encoded(photo(0, tiles=4).quantize(256)), np.asarray(photo(0, tiles=4))),
    (encoded(photo(0), "TIFF"), np.asarray(photo(0))),
    (encoded(Image.fromarray(GREY)), np.stack([GREY] * 3, -1)),
    (encoded(Image.fromarray(GREY.astype(np.uint16) * 257)), np.stack([GREY] * 3, -1)),
], ids=["RGB", "opaque alpha", "palette", "TIFF", "grey", "16 bits"])
def test_conversions_keep_every_level(data, expected):
    image = pictures.decode(data)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_cmyk_follows_its_profile_and_not_a_guess():
    """In this profile pure cyan ink prints red; a conversion that ignores it would answer cyan."""
    profile = icc_profile(b"CMYK", {0b0000: WHITE_LAB, 0b1000: RED_LAB})
    for ink, expected in (((255, 0, 0, 0), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))):
        image = pictures.decode(encoded(Image.new("CMYK", (80, 80), ink), "TIFF", icc_profile=profile))
        assert np.abs(np.asarray(image)[40, 40].astype(int) - expected).max() <= 8


def test_rgb_follows_its_profile_and_survives_a_broken_one():
    profile = icc_profile(b"RGB ", {0b111: WHITE_LAB, 0b001: RED_LAB})
    blue = Image.new("RGB", (80, 80), (0, 0, 255))
    assert np.abs(np.asarray(pictures.decode(encoded(blue, icc_profile=profile)))[0, 0].astype(int) - (255, 0, 0)).max() <= 8
    assert pictures.decode(encoded(blue, "JPEG", icc_profile=b"broken")).getpixel((0, 0))[2] > 250
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(np.asarray(pictures.decode(encoded(photo(0), icc_profile=srgb))), np.asarray(photo(0)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    upright = photo(0).crop((0, 0, 96, 64))
    turns = {1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
             7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright if turns[orientation] is None else upright.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(pictures.decode(encoded(stored, exif=exif))), np.asarray(upright))


# --- single filters ---------------------------------------------------------------------------------------------------

def test_sharpness_agrees_with_its_definition_and_falls_with_blur():
    picture = photo(0, side=128)
    grey = np.asarray(picture.convert("L"), float)
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    assert pictures.sharpness(picture) == pytest.approx(laplacian.var())
    values = [pictures.sharpness(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)


def bits_between(a: Image.Image, b: Image.Image) -> int:
    return int(np.bitwise_count(pictures.perceptual_hash(a) ^ pictures.perceptual_hash(b)).sum())


def test_perceptual_hash_forgives_saving_again_but_not_another_picture():
    picture = photo(0, side=128)
    within = Filters().near_bits
    saved = Image.open(io.BytesIO(encoded(picture, "JPEG", quality=50)))
    darker = Image.fromarray((np.asarray(picture) * 0.8).astype(np.uint8))
    for same in (saved, picture.resize((64, 64), Image.Resampling.LANCZOS), darker):
        assert bits_between(picture, same) <= within
    assert min(bits_between(picture, photo(seed, side=128)) for seed in range(1, 20)) > within
    assert bits_between(picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > within


def test_main_face():
    large, like, small, faint = Face(50, 50, 40, 1.0), Face(9, 9, 25, 0.5), Face(9, 9, 15, 2.0), Face(9, 9, 90, -0.2)
    assert pictures.main_face([large, small]) == large
    assert pictures.main_face([faint, large, small]) == large, "a faint find beside a clear one does not count"
    assert pictures.main_face([faint]) == faint
    for found, reason in (([], "no face"), ([large, like], "several faces")):
        with pytest.raises(Rejected) as error:
            pictures.main_face(found)
        assert error.value.reason == reason


@pytest.mark.parametrize("face", [None, Face(100, 80, 50, 1.0), Face(3, 3, 50, 1.0), Face(295, 195, 60, 1.0),
                                  Face(150, 100, 900, 1.0)])
def test_the_square_lies_inside_and_is_square(face):
    left, top, right, bottom = pictures.square(Image.new("RGB", (300, 200)), face, crop_scale=1.5)
    assert 0 <= left < right <= 300 and 0 <= top < bottom <= 200
    assert right - left == bottom - top == (200 if face is None or face.side > 133 else round(face.side * 1.5))


def test_the_square_frames_the_face_as_in_the_aligned_set():
    left, top, right, _ = pictures.square(Image.new("RGB", (600, 600)), Face(300, 300, 100, 1.0), crop_scale=1.05)
    assert (300 - left) / (right - left) == pytest.approx(0.5, abs=0.01)
    assert (300 - top) / (right - left) == pytest.approx(0.607, abs=0.01), "measured on aligned faces, eyes at .40"


def test_faces_are_looked_for_at_a_sensible_scale(monkeypatch):
    """A detector that reports the whole padded picture shows the scale used, and that boxes come back in its pixels."""
    seen = []

    class WholePicture:
        def run(self, grey, upsample, threshold):
            import dlib

            seen.append((grey.shape, upsample, threshold))
            height, width = grey.shape
            return [dlib.rectangle(0, 0, width - 1, height - 1)], [1.0], [0]

    monkeypatch.setattr(pictures, "_detector", WholePicture)
    for size, padded in (((64, 64), (288, 288)), ((224, 224), (336, 336)), ((4000, 3000), (720, 880)),
                         ((64, 6400), (1930, 29))):
        face, = pictures.find_faces(Image.new("RGB", size))
        assert np.abs(np.subtract(seen[-1][0], padded)).max() <= 1 and seen[-1][1:] == (0, -0.3)
        assert (face.x, face.y) == pytest.approx((size[0] / 2, size[1] / 2), rel=0.1)


# --- a messy folder ---------------------------------------------------------------------------------------------------

@pytest.fixture
def messy(tmp_path: Path) -> Path:
    with_place = Image.Exif()
    with_place[0x0112], with_place[0x010F] = 6, "SecretCamera"
    with_place.get_ifd(0x8825)[1] = "N"
    blurred = photo(4).filter(ImageFilter.GaussianBlur(12))
    return folder_of(
        tmp_path / "messy", a_dot_png=encoded(photo(0)), b_copy_dot_tif=encoded(photo(0), "TIFF"),
        c_saved_again_dot_jpg=encoded(photo(0), "JPEG", quality=60), sub__turned_dot_jpg=encoded(
            photo(1, side=200), "JPEG", exif=with_place, comment=b"SecretComment", quality=95),
        d_one_pixel_dot_png=encoded(Image.new("RGB", (1, 1))), e_small_dot_png=encoded(photo(2, side=63)),
        f_blurred_dot_png=encoded(blurred), g_truncated_dot_jpg=encoded(photo(3, side=300), "JPEG")[:-3000],
        h_notes_dot_txt=b"not a picture", i_animated_dot_gif=animation(), j_dot_png=encoded(photo(5, side=700)),
        _dot_hidden_dot_png=encoded(photo(6)))


def test_every_file_of_a_messy_folder_is_accounted_for(messy, tmp_path):
    report = quiet(messy, tmp_path / "out")
    assert {name: reason for name, (reason, _) in rejected(tmp_path / "out").items()} == {
        "b_copy.tif": "exact duplicate", "c_saved_again.jpg": "near duplicate", "d_one_pixel.png": "too small",
        "e_small.png": "too small", "f_blurred.png": "blurred", "g_truncated.jpg": "damaged", "h_notes.txt": "not a picture",
        "i_animated.gif": "animated"}
    assert "a.png" in rejected(tmp_path / "out")["b_copy.tif"][1]
    metadata = pd.read_csv(tmp_path / "out" / "metadata.csv")
    assert list(metadata.source_name) == ["a.png", "j.png", "sub/turned.jpg"]
    assert list(metadata.columns) == ["file_name", "source_name", "width", "height", "sha256"]
    assert (report.found, report.accepted, sum(report.rejected.values())) == (11, 3, 8)
    assert "3 of 11 files accepted" in report.summary()
    assert {path.name for path in tmp_path.iterdir()} == {"messy", "out"}, "no working folder is left"
    assert {path.name for path in (tmp_path / "out").iterdir()} == module.OWN_FILES


def test_what_is_written_is_square_small_enough_verifiable_and_private(messy, tmp_path):
    quiet(messy, tmp_path / "out", size=128)
    for row in pd.read_csv(tmp_path / "out" / "metadata.csv").itertuples():
        data = (tmp_path / "out" / row.file_name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256
        assert b"Secret" not in data and b"Exif" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert image.width == image.height == min(row.width, 128), "smaller ones are not enlarged"
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3, "4:4:4"
            assert not image.getexif() and "comment" not in image.info and "icc_profile" not in image.info


def test_a_turned_photograph_is_written_upright(messy, tmp_path):
    quiet(messy, tmp_path / "out")
    metadata = pd.read_csv(tmp_path / "out" / "metadata.csv").set_index("source_name")
    stored = photo(1, side=200)
    with Image.open(tmp_path / "out" / metadata.file_name["sub/turned.jpg"]) as written:
        away = {name: np.abs(np.asarray(written, float) - stored.transpose(Image.Transpose[name])).mean()
                for name in ("ROTATE_90", "ROTATE_180", "ROTATE_270")}
    assert away["ROTATE_270"] < 10 < 40 < min(away["ROTATE_90"], away["ROTATE_180"])


def test_a_zip_gives_the_same_as_its_folder(messy, tmp_path):
    with zipfile.ZipFile(tmp_path / "messy.zip", "w") as archive:
        for name, data in contents(messy).items():
            archive.writestr(name, data)
    quiet(messy, tmp_path / "out")
    quiet(tmp_path / "messy.zip", tmp_path / "zipped")
    assert contents(tmp_path / "out") == contents(tmp_path / "zipped")


def test_the_result_is_a_face_set_others_read(messy, tmp_path):
    folder_of(messy, metadata_dot_csv=b"file_name,gender\na.png,Male\nj.png,Female\nsub/turned.jpg,Male\n")
    quiet(messy, tmp_path / "out")
    frame, pixels = faces.load_faces(tmp_path / "out", size=32)
    assert faces.gender_of(frame).tolist() == [True, False, True] and pixels.shape == (3, 32, 32, 3)


@pytest.fixture
def faces_found(monkeypatch):
    """`faces_found(red=[Face, ...])`: what the detector finds depends on the top left pixel's red level."""
    def install(found: dict[int, list[Face]]):
        monkeypatch.setattr(module, "find_faces", lambda image: found.get(image.getpixel((0, 0))[0], []))
    return install


def marked(seed: int, red: int, *, side: int = 300) -> bytes:
    image = photo(seed, side=side)
    image.putpixel((0, 0), (red, 0, 0))
    return encoded(image)


def test_pictures_without_one_clear_face_are_turned_away_or_kept(tmp_path, faces_found):
    faces_found({1: [Face(150, 150, 100, 1.0)], 2: [Face(80, 80, 60, 1.0), Face(200, 80, 50, 1.0)],
                 3: [Face(150, 150, 40, 1.0)]})
    source = folder_of(tmp_path / "in", one_dot_png=marked(1, 1), two_dot_png=marked(2, 2), tiny_dot_png=marked(3, 3),
                       none_dot_png=marked(4, 0))
    quiet(source, tmp_path / "out", filters=Filters())
    assert {name: reason for name, (reason, _) in rejected(tmp_path / "out").items()} == {
        "two.png": "several faces", "tiny.png": "face too small", "none.png": "no face"}
    assert widths(tmp_path / "out") == [105]
    quiet(source, tmp_path / "kept", filters=Filters(need_face=False))
    kept = pd.read_csv(tmp_path / "kept" / "metadata.csv")
    assert widths(tmp_path / "kept") == [300, 105, 300]
    assert list(kept.source_name) == ["none.png", "one.png", "two.png"]


@pytest.mark.skipif(not (SHARED / "fairface_aligned_128px.zip").exists(), reason="no photographs of faces here")
def test_real_faces_pass_and_two_of_them_in_one_picture_do_not(tmp_path):
    frame = faces.read_metadata(SHARED / "fairface_aligned_128px.zip").head(12)
    pixels = faces.read_pixels(SHARED / "fairface_aligned_128px.zip", list(frame.file_name), size=128)
    source = folder_of(tmp_path / "in", pair_dot_png=encoded(Image.fromarray(np.concatenate([pixels[1], pixels[4]], 1))),
                       **{f"{index:02d}_dot_png": encoded(Image.fromarray(image)) for index, image in enumerate(pixels)})
    report = quiet(source, tmp_path / "out", filters=Filters())
    assert report.accepted >= 9
    assert rejected(tmp_path / "out")["pair.png"][0] == "several faces"


# --- labels -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("found", "right"), [
    ("03-Sep", "3-9"), ("Oct-19", "10-19"), ("9-Mar", "3-9"), ("19-Oct", "10-19"), ("3-sept", "3-9"), (" 01/Dec ", "1-12"),
    ("20-29", "20-29"), ("more than 70", "more than 70"), ("03-Foo", "03-Foo"), ("", ""), ("Sep", "Sep"),
    ("2024-09-03", "2024-09-03")])
def test_ranges_that_a_spreadsheet_took_for_dates(found, right):
    assert labels.mend_range(found) == right


def test_only_columns_of_ranges_are_mended():
    table = pd.DataFrame({"age": ["03-Sep"], "taken": ["03-Sep"]})
    mended, said = labels.mend_ranges(table)
    assert mended.iloc[0].tolist() == ["3-9", "03-Sep"] and said == {"age": {"03-Sep": "3-9"}}
    table = pd.DataFrame({"years": ["03-Sep", "20-29"], "note": ["Oct-19", "x"]})
    mended, said = labels.mend_ranges(table)
    assert mended["years"].tolist() == ["3-9", "20-29"] and mended["note"].tolist() == ["Oct-19", "x"]


@pytest.mark.skipif(not (SHARED / "fairface_labels_as_found.csv").exists(), reason="the real labels are not here")
def test_real_labels_are_mended():
    table = pd.read_csv(SHARED / "fairface_labels_as_found.csv", dtype=str)
    mended, said = labels.mend_ranges(table)
    assert said == {"age": {"03-Sep": "3-9", "Oct-19": "10-19"}}
    assert set(mended.age) == {"0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"}
    assert (mended.age == "3-9").sum() == (table.age == "03-Sep").sum() > 0


def test_labels_are_joined_by_name_whatever_the_order(tmp_path):
    source = photos(tmp_path / "in", 4)
    folder_of(source, metadata_dot_csv="\ufefffile_name,gender,age\n03.png,Male,03-Sep\n./00.png, Female ,20-29\n"
              "01.png,Robot,very old\ngone.png,Male,20-29\n".encode())
    report = quiet(source, tmp_path / "out")
    metadata = pd.read_csv(tmp_path / "out" / "metadata.csv", dtype=str, keep_default_na=False).set_index("source_name")
    assert metadata.gender.to_dict() == {"00.png": "Female", "01.png": "Robot", "02.png": "", "03.png": "Male"}
    assert metadata.age["03.png"] == "3-9"
    assert report.labels.unknown == {"gender": {"Robot": 1}, "age": {"very old": 1}}
    assert report.labels.without_file == ("gone.png",) and report.unlabelled == 1
    for text in (report.summary(), (tmp_path / "out" / "datasheet.md").read_text()):
        for words in ('"03-Sep" -> "3-9"', '"Robot" (1)', '"very old" (1)', "without labels: 1",
                      "without a file: 1 (the first: gone.png)"):
            assert words in text


def test_tables_of_subfolders_name_their_own_files(tmp_path):
    source = folder_of(tmp_path / "in", x__a_dot_png=encoded(photo(1)), y__a_dot_png=encoded(photo(2)),
                       x__metadata_dot_csv=b"file_name;gender\na.png;Male\n",
                       y__metadata_dot_csv=b"file_name,gender\na.png,Female\n")
    quiet(source, tmp_path / "out")
    metadata = pd.read_csv(tmp_path / "out" / "metadata.csv")
    assert dict(zip(metadata.source_name, metadata.gender, strict=True)) == {"x/a.png": "Male", "y/a.png": "Female"}


@pytest.mark.parametrize(("table", "words"), [
    (b"", "not a readable table"), (b"file_name,gender\n\xff\xfe,x\n", "not a readable table"),
    (b"file,gender\n00.png,Male\n", "no column `file_name` among file, gender"),
    (b"file_name,gender\nq.png,Male\n", "none of the 1 files it names is there"),
    (b"file_name,gender\n00.png,Male\n00.png,Female\n", "00.png has several rows that differ")])
def test_label_tables_that_cannot_be_used(tmp_path, table, words):
    source = folder_of(photos(tmp_path / "in", 2), metadata_dot_csv=table)
    with pytest.raises(InputError, match=words) as error:
        quiet(source, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_curating_a_curated_folder_keeps_labels_and_own_columns_once(tmp_path):
    folder_of(photos(tmp_path / "in", 2), metadata_dot_csv=b"file_name,gender\n00.png,Male\n01.png,Female\n")
    quiet(tmp_path / "in", tmp_path / "once")
    quiet(tmp_path / "once", tmp_path / "twice")
    twice = pd.read_csv(tmp_path / "twice" / "metadata.csv")
    assert list(twice.columns) == ["file_name", "source_name", "gender", "width", "height", "sha256"]
    assert list(twice.gender) == ["Male", "Female"]


def test_labels_that_are_called_as_the_journal_calls_its_own_are_kept_apart(tmp_path):
    source = folder_of(photos(tmp_path / "in", 2), metadata_dot_csv=b"file_name,reason,pixels\n00.png,wedding,many\n01.png,holiday,few\n")
    quiet(source, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "metadata.csv")
    assert list(table["label_reason"]) == ["wedding", "holiday"] and list(table["label_pixels"]) == ["many", "few"]


# --- who was turned away ----------------------------------------------------------------------------------------------

def judged(**rejected_of: tuple[int, int]) -> pd.DataFrame:
    """`judged(Male=(30, 100))`: 30 of 100 without a face, the rest accepted."""
    rows = [(group, "no face" if index < hit else "") for group, (hit, n) in rejected_of.items() for index in range(n)]
    return pd.DataFrame(rows, columns=["gender", "reason"])


def test_an_uneven_filter_is_named_with_its_denominators():
    said, = datasheet.uneven_filters(judged(Male=(30, 100), Female=(60, 120)))
    assert '"no face" falls unevenly on `gender`: 30% of Male (30 of 100), but 50% of Female (60 of 120)' in said


def test_even_or_small_samples_are_not_accused():
    assert datasheet.uneven_filters(judged(Male=(30, 100), Female=(33, 100))) == []
    assert datasheet.uneven_filters(judged(Male=(0, 4), Female=(4, 4))) == []


def test_a_later_filter_is_judged_among_those_that_reached_it():
    """No face takes 50 of 100 men; of the 50 left 25 are blurred: half, as among the women."""
    frame = judged(Male=(50, 100), Female=(0, 100))
    frame.loc[50:74, "reason"] = "blurred"
    frame.loc[100:149, "reason"] = "blurred"
    said, = datasheet.uneven_filters(frame)
    assert '"no face"' in said


def test_the_datasheet_counts_by_label_with_denominators(tmp_path):
    source = photos(tmp_path / "in", 5)
    rows = [f"{index:02d}.png,{'Male' if index < 2 else 'Female'}" for index in range(5)]
    folder_of(source, zz_dot_png=encoded(photo(9, side=20)), readme_dot_txt=b"x",
              metadata_dot_csv="\n".join(["file_name,gender", *rows, "zz.png,Male"]).encode())
    quiet(source, tmp_path / "out")
    text = (tmp_path / "out" / "datasheet.md").read_text()
    assert "5 of the 7 files" in text
    assert "| Male | 3 | 2 (40.0%) | 33.3% (6.1% to 79.2%) | 33.3% (1 of 3) |" in text
    assert "| Female | 3 | 3 (60.0%) | 0.0% (0.0% to 56.1%) | 0.0% (0 of 3) |" in text
    for heading in ("Motivation", "Composition", "Collection", "Preprocessing", "Uses", "Distribution", "Maintenance"):
        assert f"## {heading}" in text


# --- killed, full, finished -------------------------------------------------------------------------------------------

class Killed(BaseException):
    pass


def killed_after(monkeypatch, count: int) -> list[int]:
    """Let `count` files be judged, then die. Returns the list that counts them."""
    calls, judge = [], module.judge_file

    def judge_or_die(*args, **options):
        if len(calls) == count:
            raise Killed
        calls.append(1)
        return judge(*args, **options)

    monkeypatch.setattr(module, "judge_file", judge_or_die)
    return calls


def test_a_killed_run_continues_and_ends_the_same(messy, tmp_path, monkeypatch):
    quiet(messy, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_after(patch, 6)
        with pytest.raises(Killed):
            quiet(messy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with (tmp_path / "out.partial" / module.JOURNAL).open("a") as journal:
        journal.write('{"source_name": "half a li')
    calls = killed_after(monkeypatch, 1000)
    report = quiet(messy, tmp_path / "out")
    assert len(calls) == 11 - 6, "what was judged is not judged again"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert report.found == 11


def test_other_settings_start_afresh(messy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, 6)
        with pytest.raises(Killed):
            quiet(messy, tmp_path / "out")
    quiet(messy, tmp_path / "out", size=64)
    assert set(widths(tmp_path / "out")) == {64}


def test_a_full_disk_says_so_and_the_next_run_carries_on(tmp_path, monkeypatch):
    source = photos(tmp_path / "in", 3)
    with monkeypatch.context() as patch:
        write = Path.write_bytes

        def fill_up(path: Path, data: bytes):
            if "00001.jpg" not in path.name:
                return write(path, data)
            write(path, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(Path, "write_bytes", fill_up)
        with pytest.raises(InputError, match="out: the disk is full.*same command again"):
            quiet(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out.partial" / "images").iterdir()] == ["00000.jpg"], "no half-written file"
    assert quiet(source, tmp_path / "out").accepted == 3


def test_a_finished_folder_is_kept_unless_overwrite_is_asked_for(tmp_path):
    quiet(photos(tmp_path / "in", 2), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match="already holds .*--overwrite"):
        quiet(tmp_path / "in", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    photos(tmp_path / "in", 3)
    (tmp_path / "out" / ".DS_Store").touch()  # somebody has looked at it
    assert quiet(tmp_path / "in", tmp_path / "out", overwrite=True).accepted == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == module.OWN_FILES


def test_overwrite_spares_what_curate_did_not_write(tmp_path):
    out = folder_of(tmp_path / "out", thesis_dot_txt=b"years of work")
    with pytest.raises(InputError, match="thesis.txt, which `curate` did not write"):
        quiet(photos(tmp_path / "in", 2), out, overwrite=True)
    assert contents(out) == {"thesis.txt": b"years of work"}


def test_a_working_folder_of_someone_else_is_left_alone(tmp_path):
    folder_of(tmp_path / "out.partial", thesis_dot_txt=b"years of work")
    with pytest.raises(InputError, match="holds other things, but is needed"):
        quiet(photos(tmp_path / "in", 2), tmp_path / "out")
    assert contents(tmp_path / "out.partial") == {"thesis.txt": b"years of work"}


def test_an_empty_out_folder_is_fine_and_the_source_is_not_touched(tmp_path):
    source = photos(tmp_path / "in", 2)
    before = contents(source)
    (tmp_path / "out").mkdir()
    assert quiet(source, tmp_path / "out").accepted == 2
    assert contents(source) == before


def test_sources_and_targets_that_cannot_work(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    source = photos(tmp_path / "in", 1)
    (tmp_path / "file").write_text("x")
    for given, out, words in ((empty, "out", "no files in it"), (tmp_path / "nowhere", "out", "no such folder or zip"),
                              (tmp_path / "file", "out", "neither a folder nor a readable zip"),
                              (source, "in/out", "outside"), (source, "file", "is a file"),
                              (source, "file/out", "cannot be written")):
        with pytest.raises(InputError, match=words) as error:
            quiet(given, tmp_path / out)
        assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "in", "file"}


def test_nothing_accepted_is_an_error_that_counts_the_reasons(tmp_path):
    source = folder_of(tmp_path / "in", a_dot_txt=b"x", b_dot_png=encoded(photo(0, side=8)))
    with pytest.raises(InputError, match="none of the 2 files was accepted .*1 not a picture, 1 too small.*rejected.csv"):
        quiet(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(rejected(tmp_path / "out.partial")) == {"a.txt", "b.png"}


def test_a_file_that_cannot_be_read_from_its_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.png", encoded(photo(0)))
        archive.writestr("b.png", encoded(photo(1)))
    data = bytearray((tmp_path / "in.zip").read_bytes())
    data[60] ^= 255
    (tmp_path / "in.zip").write_bytes(data)
    quiet(tmp_path / "in.zip", tmp_path / "out")
    assert rejected(tmp_path / "out")["a.png"][0] == "unreadable"


@pytest.mark.parametrize("options", [{"size": 0}, {"min_side": 0}, {"crop_scale": 0}, {"min_sharpness": -1}])
def test_senseless_numbers(tmp_path, options):
    with pytest.raises(InputError):
        size = options.pop("size", 64)
        curate(photos(tmp_path / "in", 1), out=tmp_path / "out", size=size, filters=Filters(**options), progress=False)


# --- the command line -------------------------------------------------------------------------------------------------

def test_the_verb(tmp_path, capsys):
    source = photos(tmp_path / "in", 2)
    command = ["curate", str(source), "--out", str(tmp_path / "out"), "--size", "64", "--keep-without-face", "--no-progress"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 of 2 files accepted" in said and "datasheet.md" in said
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "already holds" in said
    assert main([*command, "--overwrite"]) == 0
