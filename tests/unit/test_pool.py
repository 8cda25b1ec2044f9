"""The pool: selection by the stated rules, balanced and spread, whatever was drawn."""

import numpy as np
import pandas as pd
import pytest

from debiaslib import pool

CONFIG = pool.PoolConfig(finetune=6, reference=2, evaluate=4)


@pytest.fixture
def drawn():
    generator = np.random.default_rng(0)
    rows = [{"asked": word, "perceived": word, "prompt": f"{word} {number % 5}", "seed": seed, "kept": generator.random() < 0.8,
             "face": True, "perceived_age": 30.0}
            for seed, (word, number) in enumerate((word, number) for word in ("Man", "Woman") for number in range(40))]
    return pd.DataFrame(rows)


def test_equal_numbers_in_every_split(drawn):
    chosen = pool.select(drawn, CONFIG)
    counts = chosen.groupby(["split", "perceived"]).size().unstack()
    assert counts.loc["finetune"].tolist() == [6, 6] and counts.loc["reference"].tolist() == [2, 2] and counts.loc["evaluate"].tolist() == [4, 4]
    assert chosen["kept"].all() and chosen["seed"].is_unique


def test_prompts_take_turns(drawn):
    """No prompt gives more than one picture above another, as long as it has them."""
    shares = pool.select(drawn, CONFIG).groupby("prompt").size()
    assert shares.max() - shares.min() <= 1


def test_every_prompt_names_one_gender_and_both_get_the_same_words():
    asked = pool.prompts()
    women, men = ({prompt.replace("woman", "*").replace("man", "*") for gender, prompt in asked if gender == name} for name in ("Female", "Male"))
    assert women == men


def test_datasheet_counts_what_was_drawn(drawn):
    text = pool.datasheet(drawn, pool.select(drawn, CONFIG), config=CONFIG, model_hash="abc", command="x")
    kept = drawn[drawn["asked"] == "Man"]["kept"].sum()
    assert f"| Man | 40 | 40 | {kept} |" in text and "24 pictures" in text


def test_written_pool_is_an_imagefolder_with_hashes(drawn, tmp_path):
    from debiaslib.faces import load_faces
    drawn = drawn.assign(p_man=0.9, confidence=0.9, face_score=1.0)
    chosen = pool.select(drawn, CONFIG)
    pictures = np.random.default_rng(0).integers(0, 256, (len(drawn), 8, 8, 3), dtype=np.uint8)
    pool.write_pool(chosen, pictures, tmp_path)
    frame, pixels = load_faces(tmp_path, split="evaluate", size=8)
    assert len(frame) == 8 and pixels.shape == (8, 8, 8, 3)
    assert set(frame["perceived_gender"]) == {"Man", "Woman"}
