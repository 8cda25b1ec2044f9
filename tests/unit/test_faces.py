"""Face sets: reading, labels, exact subsets, natural images."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import debiaslib
from debiaslib import faces
from debiaslib.errors import InputError

SHARED = Path(debiaslib.__file__).parents[2] / "shared" / "data"


def labelled(men: int, women: int) -> pd.DataFrame:
    genders = ["Male"] * men + ["Female"] * women
    return pd.DataFrame({"file_name": [f"images/{index:05d}.png" for index in range(men + women)], "gender": genders})


@pytest.fixture
def face_folder(tmp_path: Path) -> Path:
    """Four flat pictures whose red level is 10 x their number."""
    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (20, 20), (10 * index, 0, 0)).save(folder / "images" / f"{index:05d}.png")
    frame = labelled(2, 2).assign(split=["finetune", "evaluate"] * 2)
    frame.to_csv(folder / "metadata.csv", index=False)
    return folder


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder).as_posix())
    return archive


def relabel(folder: Path, **columns) -> Path:
    frame = pd.read_csv(folder / "metadata.csv").assign(**columns)
    frame.to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
def test_folder_and_zip_give_the_same_rows_and_pixels(face_folder, pack):
    frame, pixels = faces.load_faces(pack(face_folder), split="evaluate", size=8)
    assert list(frame.file_name) == ["images/00001.png", "images/00003.png"]
    assert list(frame.index) == [0, 1]
    assert pixels.shape == (2, 8, 8, 3) and pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [10, 30]
    assert faces.gender_of(frame).tolist() == [True, False]


def test_names_are_the_same_in_folder_and_zip_and_hide_what_systems_leave_behind(face_folder):
    (face_folder / ".DS_Store").write_bytes(b"x")
    (face_folder / "__MACOSX").mkdir()
    (face_folder / "__MACOSX" / "._00000.png").write_bytes(b"x")
    listed = []
    for source in (face_folder, zipped(face_folder)):
        with faces.Files(source) as files:
            listed.append(files.names())
    assert listed[0] == listed[1] == [f"images/{index:05d}.png" for index in range(4)] + ["metadata.csv"]


@pytest.mark.parametrize("words", [["male", "MALE", "Female", "female "], ["Man", "man", "Woman", "WOMAN"]])
def test_gender_words_in_any_case(face_folder, words):
    frame, _ = faces.load_faces(relabel(face_folder, gender=words), size=4)
    assert faces.gender_of(frame).tolist() == [True, True, False, False]


def test_perceived_gender_stands_in(face_folder):
    frame = pd.read_csv(face_folder / "metadata.csv").rename(columns={"gender": "perceived_gender"})
    frame.to_csv(face_folder / "metadata.csv", index=False)
    frame, _ = faces.load_faces(face_folder, size=4)
    assert faces.gender_of(frame).tolist() == [True, True, False, False]


def test_gender_comes_before_perceived_gender():
    frame = pd.DataFrame({"gender": ["Male"], "perceived_gender": ["Woman"]})
    assert faces.gender_of(frame).tolist() == [True]
    assert faces.gender_of(frame, column="perceived_gender").tolist() == [False]


def test_unknown_gender_is_named_with_its_rows(face_folder):
    relabel(face_folder, gender=["Male", "Mal", "", "Mal"])
    with pytest.raises(InputError) as error:
        faces.load_faces(face_folder, size=4)
    message = str(error.value)
    assert '"Mal" in 2 rows (images/00001.png, images/00003.png)' in message
    assert '"" in 1 row (images/00002.png)' in message
    assert str(face_folder) in message and "\n" not in message


def test_missing_gender_column_lists_those_there(face_folder):
    with pytest.raises(InputError, match="no column `sex` among file_name, gender, split"):
        faces.load_faces(face_folder, size=4, column="sex")
    with pytest.raises(InputError, match="no column `gender` among file_name, age"):
        faces.gender_of(pd.DataFrame({"file_name": ["a"], "age": ["20-29"]}))


def test_splits_may_be_called_by_numbers(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,split\na.png,0\nb.png,1\nc.png,\n")
    frame = faces.read_metadata(tmp_path)
    assert faces.rows_of_split(frame, "1", tmp_path)["file_name"].tolist() == ["b.png"]


def test_unknown_split_lists_those_there(face_folder):
    with pytest.raises(InputError, match=r"no rows of split `train`. There are finetune \(2\), evaluate \(2\)"):
        faces.load_faces(face_folder, split="train", size=4)
    pd.read_csv(face_folder / "metadata.csv").drop(columns="split").to_csv(face_folder / "metadata.csv", index=False)
    with pytest.raises(InputError, match="no column `split`"):
        faces.load_faces(face_folder, split="train", size=4)


def test_sources_that_are_none(tmp_path, face_folder):
    not_a_zip = tmp_path / "notes.txt"
    not_a_zip.write_text("hello")
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, words in ((tmp_path / "nowhere", "no such folder or zip"),
                          (not_a_zip, "neither a folder nor a readable zip"),
                          (empty, "no metadata.csv")):
        with pytest.raises(InputError, match=words):
            faces.load_faces(source)
    (empty / "metadata.csv").write_text("")
    with pytest.raises(InputError, match="not a readable table"):
        faces.load_faces(empty)
    (empty / "metadata.csv").write_text("name,gender\na,Male\n")
    with pytest.raises(InputError, match="no column `file_name` among name, gender"):
        faces.load_faces(empty)
    (empty / "metadata.csv").write_text("file_name,gender\n")
    with pytest.raises(InputError, match="no rows"):
        faces.load_faces(empty)


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
def test_missing_and_damaged_pictures(face_folder, pack):
    (face_folder / "images" / "00002.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="00002.png: not a picture .*debiaslib curate"):
        faces.read_pixels(pack(face_folder), ["images/00002.png"], size=4)
    with pytest.raises(InputError, match="00009.png: metadata.csv names this picture, but it is not there"):
        faces.read_pixels(pack(face_folder), ["images/00009.png"], size=4)


@pytest.mark.parametrize(("picture", "said"), [
    (Image.new("RGB", (1, 1)), "1 x 1 pixels, at least 4 a side"),
    (Image.new("CMYK", (64, 64)), "colours unclear"),
    (Image.new("RGBA", (64, 64)), "see-through"),
    (Image.fromarray(np.full((64, 64), 900, np.uint16)), "colours unclear"),
    ([Image.new("L", (64, 64), level) for level in (0, 99)], "animated"),
])
def test_pictures_that_would_be_read_wrongly_are_refused(tmp_path, picture, said):
    first, *rest = picture if isinstance(picture, list) else [picture]
    first.save(tmp_path / "a.tiff", save_all=bool(rest), append_images=rest)
    with pytest.raises(InputError, match=rf"a\.tiff: .*{said}.*debiaslib curate"):
        faces.read_pixels(tmp_path, ["a.tiff"], size=64)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "images/../../a.jpg", None])
def test_a_table_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    pd.DataFrame({"file_name": ["images/b.jpg", name], "gender": "Male"}).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(InputError, match="row 2 names .*no picture within the folder"):
        faces.read_metadata(tmp_path)


@pytest.mark.parametrize(("ratio", "size"), [(0.01, 4), (99, 10), (1, 1)])
def test_a_mix_that_would_leave_one_gender_out_is_refused(ratio, size):
    frame = pd.DataFrame({"file_name": [f"{number}.jpg" for number in range(400)], "gender": ["Male", "Female"] * 200})
    with pytest.raises(InputError, match=r"comes to \d+ male and \d+ female. Give a larger size"):
        faces.draw_subset(frame, ratio=ratio, size=size, seed=0)


@pytest.mark.parametrize(("ratio", "size", "men"), [(0.25, 100, 20), (1, 100, 50), (4, 100, 80), (0.25, 7, 1), (1, 7, 4),
                                                    (2, 10, 7), (0.1, 10, 1)])
def test_subset_has_exactly_the_size_and_mix(ratio, size, men):
    frame = labelled(120, 150)
    index = faces.draw_subset(frame, ratio=ratio, size=size, seed=3)
    assert len(index) == len(set(index)) == size
    assert faces.gender_of(frame)[index].sum() == men


def test_subsets_depend_on_the_seed_alone_and_are_nested():
    frame = labelled(400, 400)
    for ratio in (0.25, 1, 4):
        sets = [faces.draw_subset(frame, ratio=ratio, size=size, seed=5) for size in (33, 100, 257, 500)]
        assert all(set(small) < set(large) for small, large in zip(sets, sets[1:]))
        np.testing.assert_array_equal(sets[1], faces.draw_subset(frame, ratio=ratio, size=100, seed=5))
        assert set(sets[1]) != set(faces.draw_subset(frame, ratio=ratio, size=100, seed=6))


def test_subset_is_drawn_evenly_within_a_gender():
    """Over 200 seeds a man (8 of 20 drawn) is drawn 80 times, deviation 6.9; a woman (2 of 20) 20 times, deviation 4.2."""
    frame = labelled(20, 20)
    drawn = np.zeros(40)
    for seed in range(200):
        drawn[faces.draw_subset(frame, ratio=4, size=10, seed=seed)] += 1
    assert np.abs(drawn[:20] - 80).max() < 32
    assert np.abs(drawn[20:] - 20).max() < 20


def test_a_subset_the_faces_cannot_give_says_what_they_can():
    frame = labelled(60, 90)
    with pytest.raises(InputError) as error:
        faces.draw_subset(frame, ratio=4, size=100, seed=0)
    for words in ("80 male and 20 female", "60 male and 90 female", "largest size this ratio allows is 75"):
        assert words in str(error.value)
    assert len(faces.draw_subset(frame, ratio=4, size=75, seed=0)) == 75
    with pytest.raises(InputError, match="largest size this ratio allows is 75"):
        faces.draw_subset(frame, ratio=4, size=76, seed=0)


@pytest.mark.parametrize(("ratio", "size"), [(0, 10), (-1, 10), (float("nan"), 10), (float("inf"), 10), (1, 0)])
def test_senseless_ratio_or_size(ratio, size):
    with pytest.raises(InputError, match="a ratio"):
        faces.draw_subset(labelled(20, 20), ratio=ratio, size=size, seed=0)


def test_natural_images_are_deterministic_varied_and_start_alike():
    images = faces.natural_images(size=64, count=40, seed=1)
    assert images.shape == (40, 64, 64, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:10], faces.natural_images(size=64, count=10, seed=1))
    assert not np.array_equal(images[:10], faces.natural_images(size=64, count=10, seed=2))
    assert len({image.tobytes() for image in images}) == 40


def test_natural_images_larger_than_the_pictures_and_none_at_all():
    assert faces.natural_images(size=512, count=3, seed=0).shape == (3, 512, 512, 3)
    assert faces.natural_images(size=64, count=0, seed=0).shape == (0, 64, 64, 3)


def test_natural_images_need_no_network(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("natural_images reached for the network"))
    faces.natural_images(size=16, count=5, seed=0)


def test_natural_images_show_no_people():
    listed = {Path(path).stem for paths in faces.NATURAL_IMAGES.values() for path in paths}
    assert not listed & {"astronaut", "camera", "lfw_subset", "coins"}
    dlib = pytest.importorskip("dlib")
    detector = dlib.get_frontal_face_detector()
    for image in faces.natural_images(size=64, count=60, seed=9):
        grey = np.asarray(Image.fromarray(image).convert("L").resize((192, 192), Image.Resampling.LANCZOS))
        assert not detector.run(np.pad(grey, 48, mode="edge"), 0, -0.3)[0]


@pytest.mark.skipif(not (SHARED / "fairface_labels_as_found.csv").exists(), reason="the real labels are not here")
def test_real_labels_are_understood():
    frame = pd.read_csv(SHARED / "fairface_labels_as_found.csv")
    assert faces.gender_of(frame).sum() == (frame.gender == "Male").sum()
