"""`measure` on folders whose truth is painted into the pictures, with a judge and a feature network that read it off."""

import argparse
import json
import zipfile

import pandas as pd
import pytest
from painted import MAN, PaintedJudge, confusion_table, paint, toy_extractor
from PIL import Image

from debiaslib import fairness, measure, quality
from debiaslib.errors import InputError
from debiaslib.quality import Extractor

pytestmark = pytest.mark.usefixtures("toys")

@pytest.fixture
def samples(tmp_path):
    return paint(tmp_path / "samples", men=36, women=64, unsure=6, nobody=4)


@pytest.fixture
def reference(tmp_path):
    return paint(tmp_path / "reference", men=20, women=20, gender=["Male"] * 20 + ["Female"] * 20)


def test_counts_shares_and_intervals_are_those_painted(samples, reference):
    found = measure.measure(samples, reference=reference, extractor="toy")
    counts = {"n": 110, "decided": 100, "abstained": 10, "no_face": 4, "low_confidence": 6}
    assert counts.items() <= found.items()
    assert found["face_rate"] == pytest.approx(106 / 110)
    assert found["male_share"] == .36
    wilson, folded = fairness.share_interval(36, 100), fairness.discrepancy_interval([36, 64])
    assert (found["male_share_low"], found["male_share_high"]) == (wilson.low, wilson.high)
    assert (found["fd"], found["fd_low"], found["fd_high"]) == (folded.estimate, folded.low, folded.high)
    assert found["null_band"] == fairness.null_band(100) == .1
    assert found["judge"] == PaintedJudge.identity


def test_quality_is_that_of_the_feature_pass(samples, reference):
    found = measure.measure(samples, reference=reference, extractor="toy")
    sources = (measure.open_pictures(source) for source in (samples, reference))
    ours, theirs = (quality.extract(source, extractor=toy_extractor()) for source in sources)
    expected = quality.compare(ours, theirs)
    for name in ("extractor", "frechet", "kid", "kid_low", "kid_high", "precision", "recall", "density", "coverage",
                 "is_mean", "is_std"):
        assert found[name] == expected[name], name
    given = measure.measure(samples, reference=theirs, extractor=toy_extractor())
    assert given["frechet"] == found["frechet"]


def test_the_correction_uses_this_judge_and_this_condition(samples, reference):
    table = pd.concat([confusion_table(), confusion_table(condition="autoencoder", men=(60, 40)),
                       confusion_table(judge="another", men=(99, 1))])
    found = measure.measure(samples, reference=reference, extractor="toy", confusion=table)
    known = fairness.Confusion(men_read_man=80, men_read_woman=20, women_read_man=10, women_read_woman=90)
    expected = fairness.corrected_discrepancy(36, 100, known)
    assert (found["fd_corrected"], found["fd_corrected_low"], found["fd_corrected_high"]) == (
        expected.estimate, expected.low, expected.high)
    assert found["male_share_corrected"] == pytest.approx((.36 - .1) / .7)
    assert found["correction"] == "recall as photograph: 0.80 men, 0.90 women"
    assert set(found["fd_corrected_by_condition"]) == {"photograph", "autoencoder"}
    softer = measure.measure(samples, reference=reference, extractor="toy", confusion=table, condition="autoencoder")
    assert softer["male_share_corrected"] == pytest.approx((.36 - .1) / .5)


def test_generated_pictures_are_corrected_as_soft_ones(tmp_path, reference):
    folder = paint(tmp_path / "generated", men=6, women=14, prompt="a human face", seed=range(20))
    table = pd.concat([confusion_table(), confusion_table(condition=measure.GENERATED, men=(70, 30))])
    found = measure.measure(folder, reference=reference, extractor="toy", confusion=table)
    assert found["correction"].startswith(f"recall as {measure.GENERATED}: 0.70 men")


def test_counts_from_small_faces_are_doubted_on_large_ones(tmp_path, reference, monkeypatch):
    confusion_table().to_csv(tmp_path / "confusion.csv", index=False)
    monkeypatch.setattr(measure, "CONFUSION_FILE", tmp_path / "confusion.csv")
    for size, doubted in ((8, False), (128, True)):
        folder = paint(tmp_path / f"of{size}", men=6, women=14, size=size)
        told = measure.measure(folder, reference=reference, extractor="toy", size=8)["warnings"]
        assert any(f"{size} px wide" in note for note in told) == doubted


@pytest.mark.parametrize(("table", "reason"), [
    (None, "no confusion of this judge on pictures as photograph is known"),
    (confusion_table(judge="another"), "no confusion of this judge"),
    (confusion_table(men=(50, 50), women=(50, 50)), "at chance on pictures as photograph"),
])
def test_without_a_fitting_confusion_nothing_is_corrected_and_it_says_why(samples, reference, table, reason):
    found = measure.measure(samples, reference=reference, extractor="toy", confusion=table)
    assert found["fd_corrected"] is found["fd_corrected_low"] is found["male_share_corrected"] is None
    assert reason in found["correction"]
    assert reason in measure.interpretation(found)


def test_a_judge_that_decides_nothing_gives_no_share(tmp_path, reference):
    folder = paint(tmp_path / "blank", men=0, women=0, nobody=12)
    found = measure.measure(folder, reference=reference, extractor="toy", confusion=confusion_table())
    assert found["face_rate"] == 0
    assert found["male_share"] is found["fd"] is found["null_band"] is found["fd_corrected"] is None
    assert "nothing can be said" in measure.interpretation(found)
    assert "not measured" in measure.as_text(found)


def test_the_reference_split_is_evaluate_unless_told_otherwise(samples, tmp_path):
    labels = {"gender": ["Male", "Female"] * 15, "split": ["pretrain"] * 10 + ["evaluate"] * 20}
    folder = paint(tmp_path / "faces", men=15, women=15, **labels)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    for source in (folder, tmp_path / "faces.zip"):
        found = measure.measure(samples, reference=source, extractor="toy")["reference"]
        assert (found["split"], found["n"]) == ("evaluate", 20)
    assert measure.measure(samples, reference=folder, reference_split="pretrain", extractor="toy")["reference"]["n"] == 10
    with pytest.raises(InputError, match="no split 'test' .*evaluate, pretrain"):
        measure.measure(samples, reference=folder, reference_split="test", extractor="toy")


def test_the_reference_is_read_at_the_samples_size(samples, tmp_path):
    large = paint(tmp_path / "large", men=20, women=20, size=32)
    found = measure.measure(samples, reference=large, extractor="toy")
    assert found["image_size"] == 8
    assert not any("different sizes" in note for note in found["warnings"])


def test_warnings_tell_of_what_moves_the_figures(tmp_path, reference):
    mixed = paint(tmp_path / "mixed", men=12, women=12)
    Image.new("RGB", (8, 8), (MAN,) * 3).save(mixed / "images" / "more.jpg")
    Image.new("RGB", (16, 16), (MAN,) * 3).save(mixed / "images" / "bigger.png")
    skewed = paint(tmp_path / "skewed", men=18, women=2, perceived_gender=["Man"] * 18 + ["Woman"] * 2)
    told = " ".join(measure.measure(mixed, reference=skewed, extractor="toy")["warnings"])
    for part in ("mixed formats (.jpg, .png)", "different sizes (8 px, 16 px)", "90 % male", "26 decided pictures"):
        assert part in told
    Image.new("RGB", (16, 8), (MAN,) * 3).save(mixed / "images" / "wide.png")
    assert "not square" in " ".join(measure.measure(mixed, reference=reference, extractor="toy")["warnings"])


def doubts(pictures, reference, **options):
    opened = measure.open_pictures(pictures, **options)
    return measure.reference_doubts(opened, measure.open_reference(reference, size=opened.size, extractor=toy_extractor()))


def test_no_doubt_where_all_is_alike(samples, reference):
    assert doubts(samples, reference) == []
    assert measure.open_pictures(samples).notes == ()


def test_sizes_are_told_of_between_the_sets_too(samples, tmp_path):
    smaller, larger = (paint(tmp_path / f"{size}", men=20, women=20, size=size) for size in (6, 32))
    enlarged, = doubts(samples, smaller)
    assert "pictures of 6 px enlarged to 8 px" in enlarged
    brought, = doubts(samples, larger)
    assert "pictures of 32 px, brought to 8 px" in brought
    own, = measure.open_pictures(samples, size=12).notes
    assert "pictures of 8 px enlarged to 12 px" in own


def test_jpeg_against_png_is_told_and_two_kinds_without_loss_are_not(samples, reference, tmp_path):
    lossy = paint(tmp_path / "lossy", men=20, women=20, suffix="jpg")
    told, = doubts(samples, lossy)
    assert "is .png" in told and "JPEG's traces" in told
    told, = doubts(lossy, reference)
    assert "is .jpg" in told
    assert doubts(lossy, paint(tmp_path / "other", men=20, women=20, suffix="jpeg")) == []
    assert doubts(samples, paint(tmp_path / "plain", men=20, women=20, suffix="bmp")) == []


def test_fewer_pictures_than_features_are_told(samples, reference):
    wide = Extractor("wide", "1", 8, lambda pixels: (pixels.reshape(len(pixels), -1), pixels.mean(axis=(2, 3))))
    told = measure.measure(samples, reference=reference, extractor=wide)["warnings"]
    assert any(note.startswith("110 pictures and 40 of reference for 192 features: the covariance") for note in told)


def test_a_reference_is_opened_once_for_many(samples, reference, monkeypatch):
    opened = measure.open_reference(reference, size=8, extractor=toy_extractor())
    assert (opened.labels == ["Male"] * 20 + ["Female"] * 20).all()
    monkeypatch.setattr(quality, "load_or_extract", None)
    again = measure.measure(samples, reference=opened, extractor="toy")
    assert again["reference"] == {"source": str(reference), "split": None, "n": 40}
    json.dumps(again)


def test_only_inceptions_distance_is_called_fid(samples, reference):
    named = Extractor("inception-v3 (clean-fid)", "1", 8, toy_extractor().model)
    told = measure.as_text(measure.measure(samples, reference=reference, extractor=named))
    assert "FID" in told
    assert "Frechet" not in told.split("quality")[1].split("precision")[0]


def test_many_abstentions_are_told(tmp_path, reference):
    folder = paint(tmp_path / "soft", men=10, women=10, unsure=10)
    told = measure.measure(folder, reference=reference, extractor="toy")["warnings"]
    assert any(note.startswith("The judge abstained on 10 of 30 pictures") for note in told)


def test_the_judges_word_on_each_picture_is_kept_where_asked(samples, reference, tmp_path):
    measure.measure(samples, reference=reference, extractor="toy", judged=tmp_path / "judged.csv")
    rows = pd.read_csv(tmp_path / "judged.csv", keep_default_na=False)
    assert rows.columns[0] == "file_name"
    assert rows["perceived"].value_counts().to_dict() == {"Woman": 64, "Man": 36, "": 10}
    assert rows["file_name"].iloc[0] == "images/000.png"
    assert rows["perceived"].iloc[0] == "Man"
    assert not list(tmp_path.glob("*.partial"))


def test_memory_does_not_grow_with_the_number_of_pictures(samples, monkeypatch):
    pictures = measure.open_pictures(samples, size=4096)
    read = []
    monkeypatch.setattr(measure, "read_pixels", lambda source, names, *, size: read.append(len(names)))
    list(pictures)
    assert max(read) == 1
    assert sum(read) == 110


def test_interpretation_tells_inside_from_outside_the_null_band(tmp_path, samples, reference):
    outside = measure.interpretation(measure.measure(samples, reference=reference, extractor="toy"))
    assert "outside the null band" in outside
    assert "36 % [" in outside
    even = paint(tmp_path / "even", men=52, women=48)
    inside = measure.interpretation(measure.measure(even, reference=reference, extractor="toy"))
    assert "inside the null band" in inside
    assert f"That is no proof: an FD up to {fairness.discrepancy_interval([52, 48]).high:.3f} fits as well" in inside
    assert "perceives" in inside


def arguments(*words):
    parser = argparse.ArgumentParser()
    measure.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_the_verb_prints_json_and_nothing_else(samples, reference, capsys, monkeypatch):
    class Talkative(PaintedJudge):
        def judge(self, images, *, progress=False):
            print("a library says hello")
            return super().judge(images)

    monkeypatch.setattr(measure, "_default_judge", Talkative)
    assert measure.run(arguments(samples, "--reference", reference, "--extractor", "toy", "--json")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["male_share"] == .36
    assert "hello" in printed.err


def test_the_verb_prints_a_table_to_read(samples, reference, tmp_path, capsys):
    confusion_table().to_csv(tmp_path / "confusion.csv", index=False)
    words = (samples, "--reference", reference, "--extractor", "toy", "--confusion", tmp_path / "confusion.csv")
    assert measure.run(arguments(*words)) == 0
    printed = capsys.readouterr().out
    for part in ("FD (tv)", "0.140", "null band", "0.100", "judge-corrected", "as photograph", "on toy features"):
        assert part in printed
    assert "FID" not in printed
    assert max(len(line.replace(str(tmp_path), "")) for line in printed.splitlines()) <= 120


def test_a_shipped_confusion_is_found(samples, reference, tmp_path):
    confusion_table().to_csv(tmp_path / "absent.csv", index=False)
    assert measure.measure(samples, reference=reference, extractor="toy")["fd_corrected"] is not None


def wrong_inputs(tmp_path):
    (tmp_path / "empty").mkdir()
    truncated = paint(tmp_path / "truncated", men=3, women=3, size=64)
    path = truncated / "images" / "001.png"
    path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "columns.csv").write_text("condition,gender\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 20)
    plain = paint(tmp_path / "plain", men=2, women=2)
    return {"empty": ({"folder": tmp_path / "empty"}, "no pictures"),
            "missing": ({"folder": tmp_path / "nowhere"}, "nowhere: no such folder"),
            "truncated": ({"folder": truncated}, r"001\.png: damaged"),
            "no reference": ({"reference": tmp_path / "empty"}, "empty: no pictures"),
            "columns": ({"confusion": tmp_path / "columns.csv"}, r"columns\.csv: no column race"),
            "binary": ({"confusion": tmp_path / "binary.csv"}, r"binary\.csv: not a readable table"),
            "no confusion": ({"confusion": tmp_path / "none.csv"}, r"none\.csv: not a readable table"),
            "condition": ({"confusion": confusion_table(), "condition": "blurred"}, "'blurred': .* There is photograph"),
            "extractor": ({"extractor": "nobody"}, "unknown. Choose one of"),
            "size": ({"size": -1}, "size -1: give a side in pixels"),
            "split": ({"reference": plain, "reference_split": "evaluate"}, "no metadata.csv")}


@pytest.mark.parametrize("case", ["empty", "missing", "truncated", "no reference", "columns", "binary", "no confusion",
                                  "condition", "extractor", "size", "split"])
def test_wrong_input_is_told_in_one_line(case, tmp_path, samples, reference):
    changes, message = wrong_inputs(tmp_path)[case]
    call = {"folder": samples, "reference": reference, "extractor": "toy"} | changes
    with pytest.raises(InputError, match=message):
        measure.measure(call.pop("folder"), **call)
