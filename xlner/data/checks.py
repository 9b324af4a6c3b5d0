"""Looks a corpus through from beginning to end: what it is made of, and what is wrong with it.

Problems of form come from the reader, problems of content from here; docs/errors.md explains each by its code.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from tqdm import tqdm

from xlner.data.alignment import WordEncoder
from xlner.data.check_overlap import SentenceIndex, sentence_key
from xlner.data.check_pieces import BATCH_SENTENCES, PieceProfile
from xlner.data.check_words import word_problems
from xlner.data.corpus import ReadingOptions, read_located
from xlner.data.corpus_profile import CorpusProfile
from xlner.data.findings import Findings
from xlner.data.located import Located

FEWEST_EXAMPLES = 50
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
    stream = read_located(source, format, options._replace(scheme=scheme, report=findings.add))
    bar = tqdm(stream, desc=source, unit=" sentences", disable=None, leave=False, dynamic_ncols=True)
    sentences = _counted(bar, profile, findings)
    first_unlabelled, n_shared = "", Counter[str]()
    while batch := list(islice(sentences, BATCH_SENTENCES)):
        for located in batch:
            if located.sentence.tags is None and not first_unlabelled:
                first_unlabelled = located.place(0)
            _check_words(located, findings)
            _check_repeats(located, index, others, findings, n_shared)
        if pieces is not None:
            pieces.add(batch)
    if options.scheme == "auto" and profile.is_iob1:
        findings.forget("XL013")
    _check_labels(source, profile, first_unlabelled, findings)
    if model_types is not None and profile.entities:
        _check_model(source, profile, model_types, findings)
    return CheckedCorpus(source, _scheme_found(options.scheme, profile), profile, pieces, index, findings, n_shared)


def _counted(stream: Iterable[Located], profile: CorpusProfile, findings: Findings) -> Iterator[Located]:
    # The reader reports a sentence's broken tags right before it hands the sentence out.
    n_before = 0
    for located in stream:
        n_broken = findings.counts["XL013"]
        profile.add(located.sentence, n_broken - n_before)
        n_before = n_broken
        yield located


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
    bare = re.sub(r"[\W_]", "", name.casefold())
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
        return "IOB1"
    return f"broken: {profile.n_broken_starts:,} of {n_entities:,} entities begin with I-, the others with B-"
