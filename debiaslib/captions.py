"""Captions from face labels, with words dropped at random so that "a human face" stays neutral."""

import random
import re
from collections.abc import Iterable, Mapping

from tokenizers.pre_tokenizers import ByteLevel

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


def caption_words() -> list[str]:
    """Every word a caption can hold, lower case, sorted; "'s" counts as a word, as CLIP's tokenizer has it."""
    races = (None, "White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino_Hispanic")
    texts = [caption(gender=gender, age=age, race=race, portrait=portrait)
             for gender in (None, *NOUNS) for age in (None, *AGE_WORDS) for race in races for portrait in (False, True)]
    return sorted({word for text in texts for word in re.findall(r"'s|[a-z]+|[^\sa-z]+", text.lower())})


def byte_pairs(words: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE in which every one of `words` is one token and any other text can be spelt.

    Written here because the usual trainer breaks ties at random, and a resumed training needs the same token ids again.
    Each word, in order, is cut by the merges so far, and its pieces are then joined from the left.
    """
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for token in [*alphabet, *(letter + "</w>" for letter in alphabet)]:
        vocabulary[token] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _apply_merges([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _apply_merges(pieces, merges[-1:])
            vocabulary.setdefault("".join(merges[-1]), len(vocabulary))
    return vocabulary, merges


def _apply_merges(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    for left, right in merges:
        joined: list[str] = []
        for piece in pieces:
            if joined and joined[-1] == left and piece == right:
                joined[-1] = left + right
            else:
                joined.append(piece)
        pieces = joined
    return pieces
