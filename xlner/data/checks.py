"""Looks a corpus through from beginning to end: what it is made of, and what is wrong with it.

Problems of form come from the reader, problems of content from here; docs/errors.md explains each by its code.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from tqdm import tqdm

from xlner.data.alignment import WordEncoder
from xlner.data.check_overlap import SentenceIndex, sentence_key
from xlner.data.check_pieces import BATCH_SENTENCES, PieceProfile
from xlner.data.check_words import as_latin, word_problems
from xlner.data.corpus import ReadingOptions, read_located
from xlner.data.corpus_profile import CorpusProfile
from xlner.data.findings import Findings
from xlner.data.located import Located
from xlner.data.problems import CorpusProblem

FEWEST_EXAMPLES = 50
LONG_SENTENCE = 60  # words, before full stops inside are counted
SEVERAL_STOPS = 3
FAR_BEYOND = 5  # times the median
FEWEST_SENTENCES = 10  # of one word each
_STOPS = frozenset(".!?…。！？।؟۔")
# Names that corpora give to one and the same type, compared without case, signs and a plural s.
_SAME_TYPE = {"per": "person", "pers": "person", "people": "person", "loc": "location", "misc": "miscellaneou"}
_SAME_TYPE |= {"org": "organization", "organisation": "organization", "miscellaneous": "miscellaneou"}


class CheckedCorpus(NamedTuple):
    """What was found out about one corpus; `pieces` is None without an encoder.

    `n_shared` counts the sentences that stand in each of the other corpora too.
    """

    source: str
    scheme: str
    profile: CorpusProfile
    pieces: PieceProfile | None
    known: SentenceIndex
    findings: Findings
    n_shared: Counter[str]


def check_corpus(
    source: str,
    format: str,
    options: ReadingOptions,
    *,
    limit: int = 20,
    others: Sequence[SentenceIndex] = (),
    encoder: WordEncoder | None = None,
    model_types: Sequence[str] | None = None,
) -> CheckedCorpus:
    """Read a corpus to its end, and collect all that is wrong.

    Args:
        source: As in `read_corpus`.
        format: As in `read_corpus`.
        options: How to read; its report is not asked. With the scheme `auto`, an `I-` that continues nothing
            is wrong in a file that begins other entities with `B-`, and right in one that is IOB1.
        limit: Problems that are kept of each code.
        others: Of corpora that were checked before: sentences that stand there too are reported.
        encoder: Whose pieces are counted; None to count none.
        model_types: The types that a model knows; None to compare with none.

    Raises:
        CorpusError: If it cannot be read at all.
    """
    findings = Findings(limit)
    profile, index = CorpusProfile(), SentenceIndex(source)
    pieces = None if encoder is None else PieceProfile(encoder, findings)
    scheme = "strict" if options.scheme == "auto" else options.scheme
    starts = _Starts(findings)
    stream = read_located(source, format, options._replace(scheme=scheme, report=starts.report))
    bar = tqdm(stream, desc=source, unit=" sentences", disable=None, leave=False, dynamic_ncols=True)
    sentences, long_ones = starts.counted(bar, profile), list[_LongSentence]()
    first_unlabelled, n_shared = "", Counter[str]()
    while batch := list(islice(sentences, BATCH_SENTENCES)):
        for located in batch:
            if located.sentence.tags is None and not first_unlabelled:
                first_unlabelled = located.place(0)
            _check_words(located, findings)
            long_ones += _long_sentence(located)
            _check_repeats(located, index, others, findings, n_shared)
        if pieces is not None:
            pieces.add(batch)
    if options.scheme == "auto" and profile.is_iob1:
        findings.forget("XL013")
        starts.tell_strays(profile)
    _check_sentences(source, profile, long_ones, findings)
    if findings.total() > findings.counts["XL004"]:  # there were sentences, but none that could be read
        findings.forget("XL004")
    _check_labels(source, profile, first_unlabelled, findings)
    if model_types is not None and profile.entities:
        _check_model(source, profile, model_types, findings)
    return CheckedCorpus(source, _scheme_found(options.scheme, profile), profile, pieces, index, findings, n_shared)


class _Starts:
    """Which entities begin with an `I-`, and the first that begin with a `B-` that IOB1 has no need of."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._broken: list[str] = []  # places in the sentence that is read
        self._free: list[tuple[str, str]] = []  # places, with the tags

    def report(self, problem: CorpusProblem) -> None:
        if problem.code == "XL013":
            self._broken.append(problem.place)
        self._findings.add(problem)

    def counted(self, stream: Iterable[Located], profile: CorpusProfile) -> Iterator[Located]:
        # The reader reports a sentence's broken tags right before it hands the sentence out.
        for located in stream:
            starts = profile.add(located.sentence, len(self._broken))
            tags = located.sentence.tags
            if tags is not None and len(starts) > len(self._broken) and len(self._free) < self._findings.limit:
                places = ((located.place(start), tags[start]) for start in starts)
                self._free += [(place, tag) for place, tag in places if place not in self._broken]
            self._broken.clear()
            yield located

    def tell_strays(self, profile: CorpusProfile) -> None:
        """Note each `B-` that a file of IOB1 has no need of."""
        for number in range(profile.n_free_starts):
            place, tag = self._free[number] if number < len(self._free) else ("", "")
            message = f"{tag} where no entity of its type ends; expected I{tag[1:]}, as in the rest of the file (IOB1)"
            self._findings.note("XL017", place, message)


class _LongSentence(NamedTuple):
    """A sentence that may be several: its place, its length in words, and the full stops inside."""

    place: str
    n_words: int
    n_stops: int


def _long_sentence(located: Located) -> list[_LongSentence]:
    words = located.sentence.words
    n_stops = sum(word in _STOPS for word in words[:-1]) if len(words) >= LONG_SENTENCE else 0
    return [_LongSentence(located.place(0), len(words), n_stops)] if n_stops >= SEVERAL_STOPS else []


def _check_sentences(
    source: str, profile: CorpusProfile, long_ones: Sequence[_LongSentence], findings: Findings
) -> None:
    """What is wrong with all of a corpus: other things than words, or other units than sentences."""
    lengths, n_words, n_sentences = profile.lengths, profile.n_words, profile.n_sentences
    ask = "are these the numbers of words or sentences? then set corpus.columns=WORD,TAG"
    if n_words > 1 and not profile.scripts:
        findings.note("XL046", source, f"no word has a letter; {profile.n_numbers:,} of {n_words:,} are numbers; {ask}")
    elif n_words > 1 and 2 * profile.n_numbers > n_words:
        findings.note("XL046", source, f"{profile.n_numbers:,} of {n_words:,} words are numbers; {ask}")
    if n_sentences == 1 and lengths.longest >= LONG_SENTENCE // 2:
        message = (
            f"all {n_words:,} words are one sentence; expected a blank line after each sentence, or a column of their "
            "numbers"
        )
        findings.note("XL047", source, message)
    for place, length, n_stops in long_ones if n_sentences > 1 else ():
        if length >= FAR_BEYOND * lengths.median:
            message = (
                f"{length:,} words and {n_stops:,} full stops inside, where half of the sentences have at most "
                f"{lengths.median:,} words; is a blank line missing?"
            )
            findings.note("XL047", place, message)
    if n_sentences >= FEWEST_SENTENCES and lengths.longest == 1:
        message = f"each of {n_sentences:,} sentences is one word; does a blank line follow each row?"
        findings.note("XL048", source, message)


def _check_words(located: Located, findings: Findings) -> None:
    for number, word in enumerate(located.sentence.words):
        for code, message in word_problems(word):
            findings.note(code, located.place(number), message)


def _check_repeats(
    located: Located,
    index: SentenceIndex,
    others: Sequence[SentenceIndex],
    findings: Findings,
    n_shared: Counter[str],
) -> None:
    key = sentence_key(located.sentence)
    if not key:
        return
    place, words = located.place(0), " ".join(located.sentence.words)
    shown = repr(words if len(words) <= 60 else f"{words[:57]}...")
    same_tags = index.add(key, located.sentence, place)
    if same_tags is not None:
        code, what = (
            ("XL040", "the same sentence stands") if same_tags else ("XL041", "the same words with other tags stand")
        )
        findings.note(code, place, f"{what} at {index.first_place(key)}: {shown}")
    for other in others:
        if elsewhere := other.first_place(key):
            n_shared[other.source] += 1
            findings.note("XL042", place, f"stands at {elsewhere} too: {shown}")


def _check_labels(source: str, profile: CorpusProfile, first_unlabelled: str, findings: Findings) -> None:
    for name, number in sorted(profile.entities.items()):
        if number < FEWEST_EXAMPLES:
            findings.note(
                "XL043", source, f"{number} of type {name}; a model learns little from less than {FEWEST_EXAMPLES}"
            )
    alike = defaultdict[str, list[str]](list)
    for name in sorted(profile.entities):
        alike[_bare_name(name)].append(name)
    for names in (names for names in alike.values() if len(names) > 1):
        counts = ", ".join(f"{name} ({profile.entities[name]:,})" for name in names)
        findings.note("XL044", source, f"{counts}: are these one type?")
    if 0 < profile.n_unlabelled < profile.n_sentences:
        message = (
            f"{profile.n_unlabelled:,} of {profile.n_sentences:,} sentences have no labels, this one first; "
            "they are learnt from as text alone"
        )
        findings.note("XL045", first_unlabelled, message)


def _check_model(source: str, profile: CorpusProfile, model_types: Sequence[str], findings: Findings) -> None:
    for name in sorted(profile.entities.keys() - set(model_types)):
        message = (
            f"the model does not know {name} ({profile.entities[name]:,} entities); it knows {', '.join(model_types)}"
        )
        findings.note("XL053", source, message)
    for name in sorted(set(model_types) - profile.entities.keys()):
        findings.note("XL054", source, f"the model knows {name}, of which there is none here")


def _bare_name(name: str) -> str:
    bare = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", as_latin(name)).casefold())
    bare = _SAME_TYPE.get(bare, bare)
    return bare.removesuffix("s") if len(bare) > 4 else bare


def _scheme_found(scheme: str, profile: CorpusProfile) -> str:
    n_entities = profile.entities.total()
    if scheme == "plain":
        return "plain types, as asked"
    if not n_entities:
        return "no entities" if profile.n_unlabelled < profile.n_sentences else "no labels"
    if not profile.n_broken_starts:
        return "whole (IOB2, BIOES or BILOU)"
    if profile.is_iob1:
        n_free = profile.n_free_starts
        return "IOB1" + (f", but for {n_free:,} of {n_entities:,} entities, which begin with B-" if n_free else "")
    return f"broken: {profile.n_broken_starts:,} of {n_entities:,} entities begin with I-, the others with B-"
