"""What `xlner check-data` prints about a corpus: plain lines that read well in a log, or JSON."""

from collections.abc import Iterator
from typing import Any

from xlner.data.checks import CheckedCorpus
from xlner.data.corpus_profile import Lengths
from xlner.data.problems import CODES, ERROR, WARNING

N_SCRIPTS = 5  # listed at most


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
        yield ""
        yield from _types(checked)
    if checked.pieces is not None:
        yield ""
        yield from _pieces(checked)
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


def _types(checked: CheckedCorpus) -> Iterator[str]:
    entities, n_forms = checked.profile.entities, checked.profile.n_forms
    n_entities = entities.total()
    width = max(4, *map(len, entities))
    yield f"  {'type':{width}}  {'entities':>9}  {'share':>7}  {'different':>9}"
    for name, number in entities.most_common():
        yield f"  {name:{width}}  {number:>9,}  {_percent(number / n_entities):>7}  {n_forms[name]:>9,}"


def _pieces(checked: CheckedCorpus) -> Iterator[str]:
    pieces = checked.pieces
    if pieces is None:
        return
    yield f"  pieces a sentence: {_shown(pieces.lengths)}; the encoder's window: {pieces.window:,}"
    for cut, n_words in pieces.n_lost_words.items():
        n_entities = pieces.n_lost_entities[cut]
        yield f"  cut off after {cut} pieces, {n_words:,} words and {n_entities:,} entities would be lost"
    yield "  (xlner cuts nothing off: it reads long sentences in windows)"


def _shown(lengths: Lengths) -> str:
    return f"mean {lengths.mean:.1f}, median {lengths.median:,}, 95% up to {lengths.p95:,}, longest {lengths.longest:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
