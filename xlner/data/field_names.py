"""What corpora call their fields, columns and keys: one list of names for all formats, and what tags look like.

Names are compared without case, signs and the project before a colon: `NER_TAGS`, `ner-tags` and `XLNER:nerTags` are
one name. The names of tags stand in the order in which they are believed where a record has several.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from xlner.labels import OUTSIDE


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORD_NAMES = _names(
    "words tokens word token form forms surface wordform tokentext tokenizedtext wort wörter mot mots palabra palabras "
    "parola parole palavra palavras woord woorden słowo слово"
)
_OF_ENTITIES = _names(
    "nertags ner nertag nerlabels nerlabel netags netag ne nes namedentity namedentities entitytags entitytag "
    "entitylabels entitylabel entities entity iob2 iob iobtag iobtags bio biotags biotag bioes bilou biluo"
)
TAG_NAMES = (*_OF_ENTITIES, *_names("tags labels tag label gold goldtags etikett etikette etiqueta étiquette"))
# `name` is what NorNE calls its tags; elsewhere a name is something else, so it counts as a key of MISC only.
MISC_NAMES = (*TAG_NAMES, "name", "names")
# Keys of MISC that hold nothing but entities, so that types without prefixes count as tags there, too.
SURE_MISC_NAMES = tuple(name for name in _OF_ENTITIES if name not in ("entity", "entities"))
SPAN_NAMES = _names("spans entities ents labels label annotations annotation ner namedentities")
TEXT_NAMES = _names("text texts content data texte texto testo tekst текст")
LABEL_NAMES = _names("label labels type entity entitytype entitygroup entitylabel tag class category")
START_NAMES = _names("start startoffset startchar startpos begin beginoffset")
END_NAMES = _names("end endoffset endchar endpos stop")
SENTENCE_NAMES = _names(
    "sentence sentenceid sentenceno sentencenumber sentencenr sentid sid sentenceidx sentenceindex sent sentidx sentno "
    "satz satzid satznr phrase phraseid frase fraseid zin zinid docid documentid doc document docno"
)
INDEX_NAMES = _names("id tokenid wordid index idx tokenidx tokenno wordno position unnamed0 nr")
# Other columns of the formats at hand: they tell a header, and are not read.
OTHER_NAMES = _names("pos lemma upos xpos feats head deprel deps misc postag postags chunk chunktags lang space")

# A tag of an entity in IOB, BIOES or BILOU.
_ENTITY_TAG = re.compile(r"[BIESULMW]-\S.*", re.DOTALL)


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A name as the lists above have it."""
    return re.sub(r"[\W_]", "", name.rpartition(":")[2].casefold())


def find_name(names: Iterable[str], known: Sequence[str]) -> str | None:
    """The first of these names, in the order of the known ones; None if none is known."""
    by_plain_name: dict[str, str] = {}
    for name in names:
        by_plain_name.setdefault(plain_name(name), name)
    # Records are many, and most of their names unknown: then the known ones need not be gone through.
    if by_plain_name.keys().isdisjoint(known):
        return None
    return next((by_plain_name[name] for name in known if name in by_plain_name), None)


def value_of(record: Mapping[str, Any], known: Sequence[str]) -> Any:
    """The value under the first known name.

    Raises:
        KeyError: If there is no such field.
    """
    name = find_name(record, known)
    if name is None:
        raise KeyError(known[0])
    return record[name]


def look_like_tags(values: Iterable[object]) -> bool:
    """Whether these are tags beyond doubt: all are, and some begin or continue an entity."""
    found = {value for value in values if value not in (None, "_", "")}
    entities = {value for value in found if isinstance(value, str) and _ENTITY_TAG.fullmatch(value)}
    return found - entities <= {OUTSIDE} and any(str(value)[0] in "BSU" for value in entities)
