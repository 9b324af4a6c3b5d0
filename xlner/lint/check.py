"""Looks a corpus through from beginning to end: what it is made of, what is wrong with it, and the report.

Problems of form come from the reader, problems of content from here; docs/errors.md explains each by its code. The
memory that it takes does not grow with the number of problems.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from xlner.corpora.lines import CODES, ERROR, WARNING, CorpusProblem, Located
from xlner.corpora.source import read_located
from xlner.corpora.spans import ReadingOptions
from xlner.encode import WordEncoder
from xlner.lint.repair import SentenceIndex, as_latin, hash_of, script, sentence_key, word_problems
from xlner.tags import OUTSIDE, spans_of
from xlner.words import Sentence

FEWEST_EXAMPLES = 50
LONG_SENTENCE = 60  # words, before full stops inside are counted
SEVERAL_STOPS = 3
FAR_BEYOND = 5  # times the median
FEWEST_SENTENCES = 10  # of one word each
CUTS = (128, 256, 512)  # pieces that other tools keep of a sentence, special ones included
BATCH_SENTENCES = 256  # tokenized at a time
LONGEST_WORD = 2000  # characters of a word that are looked at
N_SCRIPTS = 5  # listed at most
_STOPS = frozenset(".!?…。！？।؟۔")
# Names that corpora give to one and the same type, compared without case, signs and a plural s.
_SAME_TYPE = {"per": "person", "pers": "person", "people": "person", "loc": "location", "misc": "miscellaneou"}
_SAME_TYPE |= {"org": "organization", "organisation": "organization", "miscellaneous": "miscellaneou"}


class Findings:
    """Collects problems; its `add` is a `Report` that returns, so that readers go on."""

    def __init__(self, limit: int = 20) -> None:
        """Keep the first `limit` problems of each code."""
        self.limit = limit
        self.counts = Counter[str]()
        self.repairs = Counter[tuple[str, str]]()  # code and what reading on makes of it
        self.first: dict[str, list[CorpusProblem]] = {}

    def add(self, problem: CorpusProblem) -> None:
        """Count a problem."""
        self.counts[problem.code] += 1
        if problem.repair:
            # `read as B-LOC` would be a repair of its own for each tag.
            repair = "the tag is mended" if problem.repair.startswith("read as ") else problem.repair
            self.repairs[problem.code, repair] += 1
        kept = self.first.setdefault(problem.code, [])
        if len(kept) < self.limit:
            kept.append(problem)

    def note(self, code: str, place: str, message: str) -> None:
        """Count something that reading does not change."""
        self.add(CorpusProblem(code, place, message, ""))

    def forget(self, code: str) -> None:
        """Take back all problems of a code that turned out to be none."""
        del self.counts[code]
        self.first.pop(code, None)
        for key in [key for key in self.repairs if key[0] == code]:
            del self.repairs[key]

    def total(self, severity: str = ERROR) -> int:
        """How many errors, or warnings, there are."""
        return sum(number for code, number in self.counts.items() if CODES[code].severity == severity)


class Lengths(NamedTuple):
    """How long sentences are."""

    mean: float
    median: int
    p95: int
    longest: int


class CorpusProfile:
    """Grows with each sentence; keeps counts and hashes, no text but the characters that there are."""

    def __init__(self) -> None:
        self.n_unlabelled = 0
        self.entities = Counter[str]()
        self.n_broken_starts = 0  # entities that begin with an I-
        self.n_free_starts = 0  # entities that begin with a B- although no entity of their type ends before them
        self.n_numbers = 0  # words of digits alone
        self._forms: dict[str, set[int]] = {}
        self._lengths = Counter[int]()
        self._chars = Counter[str]()

    def add(self, sentence: Sentence, n_broken_starts: int) -> list[int]:
        """Count a sentence, in which so many entities began with an `I-`.

        Returns where entities begin although none of their type ends before them, with an `I-` or a `B-`.
        """
        words, tags = sentence
        self._lengths[len(words)] += 1
        for word in words:
            self._chars.update(word)
        self.n_numbers += sum(map(str.isdigit, words))
        if tags is None:
            self.n_unlabelled += 1
            return []
        if tags.count(OUTSIDE) == len(tags):
            return []
        for span in spans_of(tags):
            self.entities[span.label] += 1
            self._forms.setdefault(span.label, set()).add(hash_of(words[span.start : span.end]))
        pairs = enumerate(pairwise((OUTSIDE, *tags)))
        starts = [place for place, (before, tag) in pairs if tag[0] == "B" and before[1:] != tag[1:]]
        self.n_broken_starts += n_broken_starts
        self.n_free_starts += len(starts) - n_broken_starts
        return starts

    @property
    def n_sentences(self) -> int:
        """All sentences that could be read."""
        return self._lengths.total()

    @property
    def n_words(self) -> int:
        """All words of them."""
        return sum(length * number for length, number in self._lengths.items())

    @property
    def n_forms(self) -> dict[str, int]:
        """How many different entities each type has."""
        return {name: len(forms) for name, forms in self._forms.items()}

    @property
    def is_iob1(self) -> bool:
        """Whether most entities begin with a B- only where one of the same type ends, as all should in IOB1."""
        return self.n_broken_starts > self.n_free_starts

    @property
    def lengths(self) -> Lengths:
        """In words."""
        return lengths_of(self._lengths)

    @property
    def scripts(self) -> dict[str, float]:
        """The share of each script in all letters, the largest first."""
        letters = Counter[str]()
        for char, number in self._chars.items():
            if name := script(char):
                letters[name] += number
        return {name: number / letters.total() for name, number in letters.most_common()}


def lengths_of(counts: Counter[int]) -> Lengths:
    """Mean, median, 95th percentile and maximum of lengths, given how often each comes."""
    if not counts:
        return Lengths(0.0, 0, 0, 0)
    lengths = sorted(counts)
    up_to = np.cumsum([counts[length] for length in lengths])
    median, p95 = (lengths[place] for place in np.searchsorted(up_to, [0.5 * up_to[-1], 0.95 * up_to[-1]]))
    mean = sum(length * number for length, number in counts.items()) / counts.total()
    return Lengths(mean, median, p95, lengths[-1])


class PieceProfile:
    """What an encoder's tokenizer makes of a corpus: pieces a sentence, words that get lost, what a cut would lose.

    xlner itself cuts nothing: long sentences are seen in windows.
    """

    def __init__(self, encoder: WordEncoder, findings: Findings) -> None:
        """Measure with this encoder; what is wrong goes to `findings`."""
        self.window = encoder.max_length
        self.n_lost_words = dict.fromkeys(CUTS, 0)
        self.n_lost_entities = dict.fromkeys(CUTS, 0)
        self._encoder = encoder
        self._n_special = encoder.max_length - encoder.room
        self._findings = findings
        self._lengths = Counter[int]()

    @property
    def lengths(self) -> Lengths:
        """In pieces, without special ones."""
        return lengths_of(self._lengths)

    def add(self, batch: Sequence[Located]) -> None:
        """Look up the pieces of some sentences."""
        known = self._encoder.pieces_of({word[:LONGEST_WORD] for one in batch for word in one.sentence.words})
        for located in batch:
            self._add(located, [known[word[:LONGEST_WORD]] for word in located.sentence.words])

    def _add(self, located: Located, pieces: list[tuple[int, ...]]) -> None:
        words, tags = located.sentence
        ends = np.cumsum([0, *map(len, pieces)])
        n_pieces = int(ends[-1])
        self._lengths[n_pieces] += 1
        unknown = self._encoder.tokenizer.unk_token_id
        for number, found in enumerate(pieces):
            if not found:
                message = f"the tokenizer makes nothing of {words[number]!r}"
                self._findings.note("XL050", located.place(number), message)
            elif set(found) == {unknown}:
                message = f"the encoder knows nothing of {words[number]!r}"
                self._findings.note("XL051", located.place(number), message)
        if n_pieces > self._encoder.room:
            message = f"{n_pieces:,} pieces, more than the encoder's {self._encoder.room:,}; xlner reads it in windows"
            self._findings.note("XL052", located.place(0), message)
        for cut in CUTS:
            room = cut - self._n_special
            if n_pieces > room:
                n_kept = int(np.searchsorted(ends[:-1], room))  # words that begin before the cut
                self.n_lost_words[cut] += len(words) - n_kept
                self.n_lost_entities[cut] += sum(span.end > n_kept for span in spans_of(tags or ()))


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
        source: As in `read_corpus`, and so is the format.
        format: A key of `FORMATS`, or `auto`.
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
            for number, word in enumerate(located.sentence.words):
                for code, message in word_problems(word):
                    findings.note(code, located.place(number), message)
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


# A sentence that may be several: its place, its length in words, and the full stops inside.
_LongSentence = tuple[str, int, int]


def _long_sentence(located: Located) -> list[_LongSentence]:
    words = located.sentence.words
    n_stops = sum(word in _STOPS for word in words[:-1]) if len(words) >= LONG_SENTENCE else 0
    return [(located.place(0), len(words), n_stops)] if n_stops >= SEVERAL_STOPS else []


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


def report_lines(checked: CheckedCorpus) -> Iterator[str]:
    """The report on a corpus, line by line."""
    profile, findings = checked.profile, checked.findings
    yield checked.source
    yield f"  sentences {profile.n_sentences:,}, words {profile.n_words:,}, without labels {profile.n_unlabelled:,}"
    yield f"  words a sentence: {_shown(profile.lengths)}"
    yield f"  tags: {checked.scheme}"
    scripts = [f"{name} {_percent(share)}" for name, share in list(profile.scripts.items())[:N_SCRIPTS]]
    yield f"  letters: {', '.join(scripts) or 'none'}"
    if profile.entities:
        n_forms, n_entities = profile.n_forms, profile.entities.total()
        width = max(4, *map(len, profile.entities))
        yield ""
        yield f"  {'type':{width}}  {'entities':>9}  {'share':>7}  {'different':>9}"
        for name, number in profile.entities.most_common():
            yield f"  {name:{width}}  {number:>9,}  {_percent(number / n_entities):>7}  {n_forms[name]:>9,}"
    if pieces := checked.pieces:
        yield ""
        yield f"  pieces a sentence: {_shown(pieces.lengths)}; the encoder's window: {pieces.window:,}"
        for cut, n_words in pieces.n_lost_words.items():
            n_entities = pieces.n_lost_entities[cut]
            yield f"  cut off after {cut} pieces, {n_words:,} words and {n_entities:,} entities would be lost"
        yield "  (xlner cuts nothing off: it reads long sentences in windows)"
    for code in sorted(findings.first, key=lambda code: (CODES[code].severity, code)):
        number, first = findings.counts[code], findings.first[code]
        yield ""
        yield f"  {CODES[code].severity} {code}: {CODES[code].title}: {number:,}"
        yield from (f"    {problem}" for problem in first)
        if number > len(first):
            yield f"    ... and {number - len(first):,} more"
    yield ""


def report_json(checked: CheckedCorpus) -> dict[str, Any]:
    """The same for machines."""
    profile, findings, pieces = checked.profile, checked.findings, checked.pieces
    n_forms = profile.n_forms
    content: dict[str, Any] = {
        "source": checked.source,
        "sentences": profile.n_sentences,
        "words": profile.n_words,
        "unlabelled_sentences": profile.n_unlabelled,
        "words_per_sentence": profile.lengths._asdict(),
        "tags": checked.scheme,
        "scripts": profile.scripts,
        "types": {
            name: {"entities": number, "forms": n_forms[name]} for name, number in profile.entities.most_common()
        },
    }
    if pieces is not None:
        content["pieces"] = {
            "per_sentence": pieces.lengths._asdict(),
            "window": pieces.window,
            "lost_words": pieces.n_lost_words,
            "lost_entities": pieces.n_lost_entities,
        }
    content["errors"], content["warnings"] = findings.total(ERROR), findings.total(WARNING)
    content["problems"] = {
        code: {
            "severity": CODES[code].severity,
            "title": CODES[code].title,
            "count": findings.counts[code],
            "first": [{"place": problem.place, "message": problem.message} for problem in first],
        }
        for code, first in sorted(findings.first.items())
    }
    return content


def _shown(lengths: Lengths) -> str:
    return f"mean {lengths.mean:.1f}, median {lengths.median:,}, 95% up to {lengths.p95:,}, longest {lengths.longest:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
