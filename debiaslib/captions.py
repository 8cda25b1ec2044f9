"""Captions from face labels, with words dropped at random so that "a human face" stays neutral."""

import random
from collections.abc import Mapping

NEUTRAL_PROMPT = "a human face"
AGE_WORDS = {"20-29": "young", "30-39": "adult", "40-49": "middle-aged", "50-59": "middle-aged",
             "60-69": "elderly", "more than 70": "elderly"}
NOUNS = {"Male": "man", "Female": "woman"}
PORTRAIT_SHARE = 0.2


def caption(*, gender: str | None = None, age: str | None = None, race: str | None = None, portrait: bool = False) -> str:
    """A caption such as "a young Black woman's face"; what is None goes unsaid, and all None gives the neutral prompt.

    `gender` is "Male" or "Female", `age` a FairFace band such as "20-29" (unknown bands go unsaid), `race` a FairFace
    word. `portrait` gives the other wording, "a portrait of a young Black woman".
    """
    adjectives = [AGE_WORDS.get(age or "", ""), (race or "").replace("_", " ").replace("Latino Hispanic", "Latino")]
    noun = NOUNS.get(gender or "")
    tail = [noun or "person"] if portrait else ([f"{noun}'s", "face"] if noun else ["human", "face"])
    words = [word for word in adjectives if word] + tail
    article = "an" if words[0][0].lower() in "aei" else "a"
    return f"a portrait of {article} {' '.join(words)}" if portrait else f"{article} {' '.join(words)}"


def random_caption(labels: Mapping[str, str], *, generator: random.Random, keep: float = 0.5, empty: float = 0.1) -> str:
    """A caption with each label kept with probability `keep`, and "" with probability `empty`.

    The empty caption is what classifier-free guidance steers away from (Ho and Salimans 2022).
    """
    if generator.random() < empty:
        return ""
    kept = {name: value for name, value in labels.items() if name in ("gender", "age", "race") and generator.random() < keep}
    return caption(**kept, portrait=generator.random() < PORTRAIT_SHARE)


def vocabulary_corpus() -> list[str]:
    """Text to train the tokenizer on: every caption there can be, and the alphabet so that other words can be spelt."""
    races = [None, "White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino_Hispanic"]
    captions = [caption(gender=gender, age=age, race=race, portrait=portrait)
                for gender in (None, *NOUNS) for age in (None, *AGE_WORDS) for race in races for portrait in (False, True)]
    alphabet = [" ".join(chr(code) for code in range(33, 127)), "".join(chr(code) for code in range(97, 123))]
    return captions + alphabet * 10
