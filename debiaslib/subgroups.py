"""Subgroups: age, ethnicity and gender words, read from labels or from the prompts that faces were drawn for."""

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from debiaslib.captions import AGE_WORDS, NOUNS
from debiaslib.errors import InputError
from debiaslib.faces import gender_of
from debiaslib.plots import GROUP_COLOURS, PALETTE

RACES = ("White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino")
"""FairFace's words for ethnicity as prompts say them."""
SUBGROUP = "subgroup"
PROMPT = re.compile(rf"(?:\b(?P<age>{'|'.join(sorted({*AGE_WORDS.values()}))}) )?(?:\b(?P<race>{'|'.join(RACES)}) )?"
                    r"\b(?P<noun>man|woman)\b")
NOUN_GROUPS = {noun: gender for gender, noun in NOUNS.items()}


def groups_in(part: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Grouping, group, rows: all of them as ("all", "all"), then every group of every grouping."""
    yield "all", "all", part
    for grouping in by:
        for group, members in part.groupby(grouping):
            yield grouping, group, members


def read_prompts(prompts: Sequence[str]) -> pd.DataFrame:
    """What prompts ask for: gender ("Male", "Female"), age (a word of `captions.AGE_WORDS`), race; "" where unsaid."""
    rows = [(NOUN_GROUPS[match["noun"]], match["age"] or "", match["race"] or "") if match else ("", "", "")
            for match in (PROMPT.search(str(prompt)) for prompt in prompts)]
    return pd.DataFrame(rows, columns=["gender", "age", "race"])


def subgroups_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The groupings of a face set, from labels, else from prompts: gender ("Man", "Woman"), race, and both as subgroup.

    Raises InputError when the set has neither gender and race labels nor prompts that say them.
    """
    if {"gender", "race"} <= {*frame}:
        is_male, race = gender_of(frame), frame["race"].astype(str)
    elif "prompt" in frame:
        asked = read_prompts(frame["prompt"])
        is_male, race = asked["gender"].map({"Male": True, "Female": False}), asked["race"]
    else:
        raise InputError(f"columns {', '.join(frame)}: an audit by subgroup needs gender and race, or the prompts they were "
                         "drawn from. Add labels to metadata.csv, or generate with `debiaslib generate`.")
    race = race.str.replace("_", " ").str.replace("Latino Hispanic", "Latino").replace("", "unsaid").to_numpy()
    gender = pd.Series(is_male).map({True: "Man", False: "Woman"}).fillna("unsaid").to_numpy()
    return pd.DataFrame({"gender": gender, "race": race, SUBGROUP: [f"{one} {two.lower()}" for one, two in
                                                                    zip(race, gender, strict=True)]})


def colour_of(group: str) -> tuple:
    """The colour of a group, the same everywhere: men's and women's own, for subgroups too; grey where neither is meant."""
    word = str(group).split()[-1].strip(",").capitalize() if str(group) else ""
    return GROUP_COLOURS.get(word, PALETTE[7])
