"""Sentences, entities and words: the two records that people meet, and where words of raw text begin and end."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import regex

from xlner.errors import ModelError
from xlner.notebook import text_html


class Sentence(NamedTuple):
    """Words as the corpus holds them, and their IOB2 tags; `tags` is None where the corpus has no labels."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None


class Entity(NamedTuple):
    """A typed span of a text: `text == source[start:end]`, offsets in Python characters, score in [0, 1]."""

    text: str
    label: str
    start: int
    end: int
    score: float

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields by name, as JSON wants them: `json.dumps(entity)` itself gives a list, since it is a tuple."""
        return self._asdict()


class Entities(list[Entity]):
    """The entities of one text: a list, which a notebook shows as the text with its entities marked."""

    def __init__(self, entities: Iterable[Entity] = (), text: str = "") -> None:
        super().__init__(entities)
        self.text = text

    def _repr_html_(self) -> str:
        return text_html(self.text, [(one.start, one.end, one.label, f"{one.score:.2f}") for one in self])


# Raw text to words: where each word of a text begins and ends, for any string.
#
# A tagger is trained on the words of a corpus, so it must see words of the same kind in raw text. The splitters
# here know no language; a model folder names the one that its tagger uses. Words come in the order of the text,
# never overlap and hold something visible; what lies between them is white space or invisible.


WordOffsets = list[tuple[int, int]]

# Sets of characters, to stand between brackets in version 1 patterns of `regex`.
_SCRIPTS = (r"\p{Han}", r"\p{Hiragana}ー", r"\p{Katakana}ーｰ", r"\p{Thai}", r"\p{Lao}", r"\p{Khmer}", r"\p{Myanmar}")
UNSPACED = rf"[[{''.join(_SCRIPTS)}]--[\p{{Nd}}]]"
_INVISIBLE = r"\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}"
_WORD = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--{UNSPACED}]"
_FIRST = rf"[{_WORD}--[{_INVISIBLE}]]"
# Soft hyphen, zero-width joiner and non-joiner, word joiner: they never part a word.
_GLUE = r"[\u00AD\u200C\u200D\u2060]"
_LETTER = rf"[[\p{{L}}\p{{M}}]--{UNSPACED}]"
_APOSTROPHE = "['’]"
# What French, Italian and Catalan shorten before a vowel; a corpus cuts behind the apostrophe.
_ELIDED = "l|d|s|n|c|j|m|t|qu|jusqu|lorsqu|puisqu|un|gl|sant|quest|quell|all|dell|dall|nell|sull|coll"
_ELISION = f"(?:{_ELIDED}|{_ELIDED.title()})"
_CLITIC = rf"{_APOSTROPHE}(?:s|S|ll|re|ve|d|m)(?!{_WORD})"

# Every repetition is possessive or bounded: no text makes the pattern go back, so time is linear.
_WORD_PATTERN = rf"""(?xV1)
      (?=\p{{Extended_Pictographic}}) \X                            # an emoji sequence
    | \p{{Regional_Indicator}}{{1,2}}                               # a flag; \X takes quadratic time here
    | UNSPACED_WORD
    | (?:https?://|www\.) [!-~]* [A-Za-z0-9/]                       # a web address
    | [A-Za-z0-9._+-]{{1,64}}+ @ [A-Za-z0-9-]++ (?:\.[A-Za-z0-9-]++)++  # a mail address
    | (?:{_LETTER}{{1,2}}\.) (?:{_LETTER}{{1,2}}\.)++               # z.B.  U.S.  Ph.D.
    | \p{{Lu}}\p{{M}}?\. (?=[ \u00A0-]{{0,2}}\p{{Lu}})              # J. in J. R. Smith
    | (?:St|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Chr|Bros|Inc|Ltd|Corp)\.        # abbreviations that stand in names
    | {_ELISION} {_APOSTROPHE} (?={_LETTER}) (?!{_CLITIC})          # l'  dell'  qu'
    | (?<!{_APOSTROPHE}) {_ELISION} {_APOSTROPHE} (?=[ ]{_LETTER})    # the same in text cut before: l' Italia
    | {_CLITIC}                                                     # 's of London's
    | {_FIRST} {_WORD}*+
      (?:
        (?: {_GLUE}++
          | (?<={_LETTER}) [-‐‑] (?={_WORD})                        # Jean-Claude, Covid-19
          | (?<=\p{{N}}) [-‐‑] (?={_LETTER})                        # 18-jährig, but 1914 - 1918
          | (?<={_LETTER}) (?!{_CLITIC}) {_APOSTROPHE} (?={_LETTER})  # O'Brien
          | (?<={_LETTER}) & (?={_LETTER})                          # AT&T
          | (?<=\p{{L}}) \. (?=\p{{Ll}})                            # example.com
          | (?<=\p{{Nd}}) [.,:/٫٬] (?=\p{{Nd}})                     # 3.5  10,000  19:30  24/12
        ) {_WORD}++
      )*+ \u200D?                                                   # such a joiner shapes the last letter
    | ([^{_INVISIBLE}]) \1*+ \p{{M}}*+                              # any other sign; ... is one word
    """
# What is a word in a script without spaces: one character, or all that follow one another in one script.
_CHARACTER = rf"(?={UNSPACED}) \X"
_RUN = "|".join(rf"(?:(?=[[{script}]--[\p{{Nd}}]])\X)++" for script in _SCRIPTS)
_UNICODE_WORD = regex.compile(_WORD_PATTERN.replace("UNSPACED_WORD", _CHARACTER))
_SCRIPT_RUN_WORD = regex.compile(_WORD_PATTERN.replace("UNSPACED_WORD", _RUN))
_BEGINS_UNSPACED = regex.compile(rf"(?V1){UNSPACED}")
_FIRST_UNSPACED = "\u0e00"  # of Thai; Lao, Khmer, Myanmar, kana and Han come behind
_OTHER_LETTERS = regex.compile(r"\p{L}")
_NOT_SPACE = regex.compile(r"[^\s\x1C-\x1F]+")  # what `str.split` takes for white space
_VISIBLE = regex.compile(rf"(?V1)[^{_INVISIBLE}]")


def split_words(text: str, splitter: str = "unicode") -> WordOffsets:
    """Start and end of each word, in characters of the text.

    Args:
        text: Any string, lone surrogates included.
        splitter: A key of `WORD_SPLITTERS`.

    Raises:
        ModelError: If there is no such splitter; it is a model folder that names one.
    """
    if splitter not in WORD_SPLITTERS:
        raise ModelError(f"unknown word splitter {splitter!r}; known: {', '.join(sorted(WORD_SPLITTERS))}")
    return WORD_SPLITTERS[splitter](text)


def begins_unspaced(word: str) -> bool:
    """Whether a word begins in a script that puts no spaces between words."""
    return _BEGINS_UNSPACED.match(word) is not None


def unspaced_runs(words: Sequence[str]) -> list[slice]:
    """The parts of a sentence in which no spaces stand: words of scripts without them, and the signs beside them.

    They end at words of other letters; digits are signs here. A part has two words or more.
    """
    if not words or max(words) < _FIRST_UNSPACED:
        return []  # nearly all sentences of other scripts, at little cost
    runs, start = [], 0
    for place in range(len(words) + 1):
        if place < len(words) and (begins_unspaced(words[place]) or not _OTHER_LETTERS.search(words[place])):
            continue
        if place - start > 1 and any(map(begins_unspaced, words[start:place])):
            runs.append(slice(start, place))
        start = place + 1
    return runs


def unicode_words(text: str) -> WordOffsets:
    """Words as the CoNLL corpora, Universal Dependencies and WikiNEuRal mostly cut them.

    Letters, digits and their marks make words. Hyphens and apostrophes inside them stay, and so do
    separators between digits and the periods of `z.B.` and `U.S.`. Elided articles (`l'`, `dell'`) and
    English endings (`'s`) are words of their own. Any other sign is a word, and a run of one sign is a
    single word. In scripts without spaces each character is a word. A capital and its period are one word
    where another capital follows (`J. R. Smith`), which is wrong where a sentence ends so.
    """
    return [match.span() for match in _UNICODE_WORD.finditer(text)]


def script_run_words(text: str) -> WordOffsets:
    """As `unicode_words`, but in scripts without spaces a run of characters of one script is a word.

    Fewer and longer words: 東京タワー is 東京 and タワー. An entity can begin and end only where the script changes or
    a sign stands: fit for corpora that are cut so, and for names in katakana; too coarse for Chinese and Thai names.
    """
    return [match.span() for match in _SCRIPT_RUN_WORD.finditer(text)]


def whitespace_words(text: str) -> WordOffsets:
    """Whatever stands between white space, for text that is already split; invisible runs are no words."""
    return [match.span() for match in _NOT_SPACE.finditer(text) if _VISIBLE.search(match.group())]


# A new splitter is one function above and one line here; model folders and recipes name it by its key.
WORD_SPLITTERS: dict[str, Callable[[str], WordOffsets]] = {
    "unicode": unicode_words,
    "script_runs": script_run_words,
    "whitespace": whitespace_words,
}
