"""What can be wrong with a corpus, by code, what a reader does when it meets it, and the place of a sentence."""

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from xlner.errors import CorpusError
from xlner.files import shipped
from xlner.words import Sentence

# What can be wrong with a corpus, by code, and what a reader does when it meets it.
#
# A reader hands each problem to a `Report`. The usual one, `refuse`, raises it. A report that returns makes the
# reader go on with the repair that the problem names: so one and the same reader reads strictly, lists all that is
# wrong (`xlner check-data`), and repairs (`--fix`). The codes are explained in docs/errors.md.


ERROR, WARNING = "error", "warning"


class Code(NamedTuple):
    """A kind of problem: errors stop a strict reader, warnings are told by `xlner check-data` alone."""

    severity: str
    title: str


class CorpusProblem(CorpusError):  # noqa: N818 - a CorpusError with a code and a place
    """One problem at one place."""

    def __init__(self, code: str, place: str, message: str, repair: str = "the sentence is left out") -> None:
        """Say what was found where.

        Args:
            code: A key of `CODES`.
            place: File and line, or whatever tells where.
            message: What was found, what was expected, and the way out.
            repair: What reading on makes of it.
        """
        super().__init__(f"{place}: {message} [{code}]")
        self.code = code
        explained = shipped("docs/errors.md")
        self.hint = f"`xlner check-data FILE` lists all problems of a corpus; {explained} explains {code}"
        self.place = place
        self.message = message
        self.repair = repair


class LeftOut(Exception):  # noqa: N818 - it is a way out of a sentence, not an error
    """Ends the reading of a sentence whose problems were reported and cannot be repaired."""


Report = Callable[[CorpusProblem], None]


def refuse(problem: CorpusProblem) -> NoReturn:
    """The strict report: the first problem ends the reading."""
    raise problem


CODES: dict[str, Code] = {
    "XL001": Code(ERROR, "bytes that are not of this encoding"),
    "XL002": Code(ERROR, "a line too long to be one"),
    "XL003": Code(ERROR, "no end of a sentence for many lines"),
    "XL004": Code(ERROR, "no sentence in the file"),
    "XL005": Code(ERROR, "lines that end at what is no line end"),
    "XL010": Code(ERROR, "a row with another number of columns"),
    "XL011": Code(ERROR, "an empty word"),
    "XL012": Code(ERROR, "an unknown tag"),
    "XL013": Code(ERROR, "a tag that continues no entity"),
    "XL014": Code(ERROR, "words without a label beside words with one"),
    "XL015": Code(ERROR, "a tag where there is no word"),
    "XL016": Code(ERROR, "more or fewer tags than words"),
    "XL017": Code(WARNING, "a B- in a file of IOB1"),
    "XL020": Code(ERROR, "a record that is no JSON object"),
    "XL021": Code(ERROR, "a record without the fields that are needed"),
    "XL022": Code(ERROR, "a span outside its text"),
    "XL023": Code(ERROR, "spans that overlap"),
    "XL024": Code(ERROR, "a span that begins or ends inside a word"),
    "XL025": Code(ERROR, "an annotation that cannot be understood"),
    "XL026": Code(ERROR, "half a surrogate pair"),
    "XL030": Code(WARNING, "a word that nobody can see"),
    "XL031": Code(WARNING, "a word that begins with a byte order mark"),
    "XL032": Code(WARNING, "white space inside a word"),
    "XL033": Code(WARNING, "a control or zero-width character inside a word"),
    "XL034": Code(WARNING, "a character that was lost (U+FFFD)"),
    "XL035": Code(WARNING, "UTF-8 that was read as another encoding"),
    "XL036": Code(WARNING, "look-alike letters of two scripts in one word"),
    "XL040": Code(WARNING, "a sentence that stands twice in a file"),
    "XL041": Code(WARNING, "the same words with other tags"),
    "XL042": Code(WARNING, "a sentence that stands in another file too"),
    "XL043": Code(WARNING, "a type with few examples"),
    "XL044": Code(WARNING, "types that look alike"),
    "XL045": Code(WARNING, "sentences without labels beside sentences with labels"),
    "XL046": Code(WARNING, "numbers in the place of words"),
    "XL047": Code(WARNING, "a sentence that may be several"),
    "XL048": Code(WARNING, "sentences of one word each"),
    "XL050": Code(WARNING, "a word that the tokenizer makes nothing of"),
    "XL051": Code(WARNING, "a word that the encoder does not know at all"),
    "XL052": Code(WARNING, "a sentence longer than the encoder's window"),
    "XL053": Code(WARNING, "a type that the model lacks"),
    "XL054": Code(WARNING, "a type of the model that the corpus lacks"),
}


# A sentence with its place, for those who must tell where something stands.


class Located(NamedTuple):
    """A sentence, and what gives the place (file and line, or the like) of its n-th word."""

    sentence: Sentence
    place: Callable[[int], str]


def everywhere(place: str) -> Callable[[int], str]:
    """One place for all words: that of a line which holds the whole sentence."""
    return lambda _: place


def by_word(place: str) -> Callable[[int], str]:
    """A place with the number of the word, from 1: `x.jsonl:3, word 2`."""
    return lambda position: f"{place}, word {position + 1}"
