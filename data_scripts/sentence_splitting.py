"""Running text to sentences, by rules that know no language but the abbreviations listed here.

A sentence ends behind

- `。！？．｡`, the Armenian, Arabic, Urdu, Ethiopic, Khmer, Burmese and Indic signs of the kind, wherever they stand;
- `.`, `!`, `?` or `…`, with any closing quotes and brackets, before white space and no small letter.

A period ends none behind an abbreviation of `ABBREVIATIONS`, a single letter (`J. R. Smith`), letters with periods
between them (`z.B.`, `U.S.`), `no.` and its like before a digit, or, in the languages of `ORDINAL_LANGUAGES`, a number
of one or two digits before a capital (`3. Oktober`). So some ends are missed, and two sentences stay together; that
harms raw text for training less than halves of sentences.
"""

from collections.abc import Iterator
from functools import cache

import regex

_CLOSERS = r"[\p{Pe}\p{Pf}\p{Pi}\"'»«”’]"
_ANYWHERE = "。！？．｡։؟۔።፧፨។៕။।॥"
# A run of signs is tried once, from its first one: otherwise long runs would take quadratic time.
_END = regex.compile(rf"[{_ANYWHERE}]++{_CLOSERS}*+\s*+|(?<![.!?…])[.!?…]++{_CLOSERS}*+(?=\s|$)\s*+")
_LAST_TOKEN = regex.compile(r"[^\s\p{Ps}\p{Pi}\"'„“]*+$")
_INITIALS = regex.compile(r"(?:\p{L}\p{M}*|(?:\p{L}{1,3}\.)+\p{L}{1,3})")
_ORDINAL = regex.compile(r"\p{Nd}{1,2}")
LONGEST_TOKEN = 40  # characters before a period that are looked at


def split_sentences(text: str, language: str) -> Iterator[str]:
    """The sentences of a paragraph, without the white space around them.

    Args:
        text: A paragraph; white space of any kind, line ends included, may separate its words.
        language: Its code; decides whether `3. Oktober` stays together.
    """
    start = 0
    for match in _END.finditer(text):
        if match.end() < len(text) and not _ends_sentence(text, match, language):
            continue
        if sentence := text[start : match.end()].strip():
            yield sentence
        start = match.end()
    if rest := text[start:].strip():
        yield rest


def _ends_sentence(text: str, match: "regex.Match[str]", language: str) -> bool:
    sign = text[match.start()]
    # In dialogues, a dash stands before who said it.
    following = text[match.end() : match.end() + 4].lstrip("-–— ")[:1]
    if sign in _ANYWHERE:
        return True
    if following.islower():
        return False
    if sign != "." or match.group().rstrip() != ".":
        return True
    before = text[max(0, match.start() - LONGEST_TOKEN) : match.start()]
    token = _LAST_TOKEN.search(before)
    word = token.group() if token else ""
    if word.lower() in _abbreviations(language) or _INITIALS.fullmatch(word):
        return False
    if following.isdecimal() and word.lower() in NUMBERED:
        return False
    return not (language in ORDINAL_LANGUAGES and _ORDINAL.fullmatch(word) and following.isupper())


@cache
def _abbreviations(language: str) -> frozenset[str]:
    return frozenset(f"{ABBREVIATIONS['all']} {ABBREVIATIONS.get(language, '')}".split())


ORDINAL_LANGUAGES = frozenset(
    ("bs", "cs", "da", "de", "et", "fi", "fo", "hr", "hu", "is", "lb", "lv", "nb", "nds", "nn", "no", "sk", "sl", "sr")
)
NUMBERED = frozenset(("art", "ch", "no", "nos", "nr", "op", "p", "pp", "sec", "str"))  # only before a digit
# Words that a name or number follows; those that often end a sentence (etc., usw.) are left out.
ABBREVIATIONS = {
    "all": "dr prof st vs vol fig cf",
    "de": "abt bd bzw ca evtl geb gest ggf hl hr hrsg inkl jh jhd nr sog str tel vgl zit",
    "en": "bros capt col corp fr gen gov hon inc jr lt ltd mr mrs ms mt nos rep rev sen sgt sr",
    "es": "apdo av avda dña dra dres excmo gral ilmo lic núm pág sr sra sras sres srta ud uds",
    "fr": "mm mme mmes mlle mlles mgr chap éd env",
    "it": "arch avv dott ing on sig sigg",
    "nl": "bijv blz dhr drs ds gebr ir jhr mevr mgr mw nr nrs resp zgn",
    "pl": "al ds gen im inż ks mgr mjr np nr os płk pw tzw ul ur zm św",
    "pt": "av dra eng exmo núm pág sr sra",
    "ru": "г гг гр им млн млрд обл стр тыс ул",
}
