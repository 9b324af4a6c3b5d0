"""Lists of names and patterns of words as an annotator, in the format of spaCy's EntityRuler; the extra `spacy`.

    {"label": "LOC", "pattern": "Rio de Janeiro"}
    {"label": "EMAIL", "pattern": [{"TEXT": {"REGEX": "^[^@]+@[^@]+$"}}]}
    {"label": "ORG", "pattern": [{"IS_TITLE": true, "OP": "+"}, {"LOWER": {"IN": ["gmbh", "ag"]}}]}

A pattern is a phrase, or a list of words of which each is told by spaCy's token attributes, those alone that need no
trained pipeline. Matching is spaCy's own, on the words of the corpus. Of matches that share a word the longest counts,
then the first, then that of the pattern that stands first in the file.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.corpora.json_records import fields_of, read_json_records
from xlner.corpora.lines import CorpusProblem, refuse
from xlner.corpora.source import Annotation, ScoredSpan, visible
from xlner.corpora.spans import SplitText, visible_label
from xlner.errors import CorpusError

if TYPE_CHECKING:
    from spacy.tokens import Doc

_OF_PIPELINES = {"POS", "TAG", "MORPH", "DEP", "LEMMA", "ENT_TYPE", "ENT_IOB", "ENT_ID", "ENT_KB_ID", "SENT_START"}
_OF_PIPELINES |= {"IS_SENT_START", "_"}
_OF_LANGUAGES = {
    "IS_STOP": 'stop words differ by language; list them: {"LOWER": {"IN": ["der", "die"]}}',
    "SPACY": "words of a corpus do not tell the white space behind them",
}
_OF_WORDS = "TEXT, LOWER, SHAPE, LENGTH, IS_TITLE, LIKE_NUM and the like"
_N_SHOWN = 60


class Pattern(NamedTuple):
    """A line of the file: a phrase, or a list of words by their attributes."""

    place: str
    label: str
    pattern: str | list[dict[str, Any]]


class Patterns:
    """The patterns of a file; an annotator that is sure of what it finds and says nothing of the rest."""

    def __init__(self, path: Path, patterns: Sequence[Pattern], split_text: SplitText) -> None:
        """Take the patterns; phrases are split as `split_text` does.

        Raises:
            CorpusError: At the first pattern that spaCy does not take, or if it is not installed.
        """
        try:
            import spacy
            from spacy.matcher import Matcher, PhraseMatcher
        except ImportError:
            raise CorpusError(f"patterns={path} needs spaCy; install it by `pip install xlner[spacy]`") from None
        self.path = path
        self._patterns = patterns
        self.types = tuple(sorted({one.label for one in patterns}))
        self._vocab = spacy.blank("xx").vocab
        self._phrases, self._words = PhraseMatcher(self._vocab), Matcher(self._vocab)
        for number, one in enumerate(patterns):
            if isinstance(one.pattern, str):
                words = [one.pattern[start:end] for start, end in split_text(one.pattern)]
                if not words:
                    refuse(CorpusProblem("XL021", one.place, f"the pattern {one.pattern!r} holds no word"))
                self._phrases.add(str(number), [self._doc(words)])
            else:
                pattern = _composed(one.pattern)
                self._check(pattern, one.place)
                self._words.add(str(number), [pattern])

    def _check(self, words: list[dict[str, Any]], place: str) -> None:
        """Refuse a pattern that spaCy does not take, or that asks for what words alone do not have."""
        from spacy.errors import MatchPatternError
        from spacy.matcher import Matcher

        asked_for = {str(name).upper() for word in words for name in word}
        for name in sorted(asked_for & _OF_LANGUAGES.keys()):
            refuse(CorpusProblem("XL021", place, f"the pattern asks for {name}; {_OF_LANGUAGES[name]}"))
        if trained := asked_for & _OF_PIPELINES:
            message = f"the pattern asks for {min(trained)}, which only a trained pipeline tells"
            refuse(CorpusProblem("XL021", place, f"{message}; words alone have {_OF_WORDS}"))
        try:
            trial = Matcher(self._vocab, validate=True)
            trial.add("trial", [words])
            trial(self._doc(["two", "words"]))
        except re.error as problem:
            refuse(CorpusProblem("XL021", place, f"no regular expression: {problem}"))
        except (MatchPatternError, ValueError, TypeError, KeyError, AttributeError) as problem:
            lines = [line.strip(" -") for line in str(problem).splitlines() if line.strip()]
            refuse(CorpusProblem("XL021", place, f"spaCy does not take this pattern: {lines[-1]}"))

    def __len__(self) -> int:
        return len(self._patterns)

    def of(self, words: Sequence[str]) -> Annotation:
        """What they find in a sentence."""
        ends = list(accumulate(len(visible(word)) for word in words))
        starts = [0, *ends[:-1]]
        found = [ScoredSpan(self._patterns[n].label, starts[a], ends[b - 1], 1.0) for n, a, b in self._matches(words)]
        return Annotation(tuple(one for one in found if one.start < one.end), self.types)

    def _matches(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """The pattern, first word and end of each match, none overlapping."""
        doc = self._doc(words)
        matchers = [matcher for matcher in (self._phrases, self._words) if len(matcher)]
        found = chain.from_iterable(matcher(doc) for matcher in matchers)
        matches = [(int(self._vocab.strings[key]), start, end) for key, start, end in found]
        taken, kept = [False] * len(words), []
        for number, start, end in sorted(matches, key=lambda match: (match[1] - match[2], match[1], match[0])):
            # A longer match that shares a word with this one has its first or its last.
            if start < end and not (taken[start] or taken[end - 1]):
                taken[start:end] = [True] * (end - start)
                kept.append((number, start, end))
        return kept

    def about(self, sentences: Iterable[Sequence[str]]) -> str:
        """What the patterns find in a text, for a person.

        Raises:
            CorpusError: If they find nothing.
        """
        n_sentences, n_matches, used = 0, 0, set[int]()
        for words in sentences:
            numbers = [number for number, _, _ in self._matches(words)]
            n_sentences += bool(numbers)
            n_matches += len(numbers)
            used.update(numbers)
        if not used:
            raise CorpusError(f"{self.path}: none of its {len(self):,} patterns finds anything in the target text")
        idle = f"; {len(self) - len(used):,} find nothing" if len(used) < len(self) else ""
        return f"{self.path}: {len(self):,} patterns find {n_matches:,} entities in {n_sentences:,} sentences{idle}"

    def _doc(self, words: Sequence[str]) -> "Doc":
        from spacy.tokens import Doc

        return Doc(self._vocab, words=_composed(words))


def _composed(value: Any) -> Any:
    """The same value, all strings in it in their composed form (NFC), names of attributes excepted."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {name: _composed(part) for name, part in value.items()}
    return [_composed(part) for part in value] if isinstance(value, list | tuple) else value


def read_patterns(path: Path, split_text: SplitText) -> Patterns:
    """The patterns of a file.

    Args:
        path: JSON Lines: `label` and `pattern`; other fields, such as `id`, are passed over.
        split_text: How the words of the corpus were split; phrases are split alike.

    Raises:
        CorpusError: If there is no such file, or none in it; at the first line that is none, with its place; or if
            spaCy is not installed.
    """
    if not path.is_file():
        raise CorpusError(f"patterns={path}: no such file; expected label and pattern as JSON, one a line")
    patterns = []
    for found in read_json_records(path, "utf-8", refuse):
        record = fields_of(found, refuse)
        label = record.get("label")
        pattern: Any = record.get("pattern")
        if not isinstance(label, str) or not visible_label(label):
            refuse(CorpusProblem("XL021", found.place, f"expected a type as label; found {label!r}"))
        is_list = isinstance(pattern, list) and bool(pattern) and all(isinstance(word, dict) for word in pattern)
        if not isinstance(pattern, str) and not is_list:
            message = f"expected a phrase as pattern, or a list of words as objects; found {str(pattern)[:_N_SHOWN]}"
            refuse(CorpusProblem("XL021", found.place, message))
        patterns.append(Pattern(found.place, visible_label(str(label)), pattern))
    if not patterns:
        raise CorpusError(f"{path}: expected label and pattern as JSON, one a line; found none")
    return Patterns(path, patterns, split_text)
