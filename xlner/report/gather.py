"""What is known of a run: read from its folder, and, where models and corpora are still there, computed again.

Nothing of it ends a report: what is missing or damaged becomes a note, and the rest is told.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml
from tqdm import tqdm

from xlner.compare import TaggedSentence, read_predictions, sentence_counts
from xlner.config.schema import CorpusRecipe
from xlner.corpora.lines import find_corpus
from xlner.corpora.splits import CorpusFingerprint, read_labelled, text_stream
from xlner.decoding import ValidTags
from xlner.errors import RunError, XlnerError
from xlner.evaluate import Score
from xlner.files import RUNS, read_lines, to_json, write_text
from xlner.models.settings import THRESHOLDS_FILE
from xlner.notebook import f1_by_type
from xlner.report.measures import (
    Calibration,
    ErrorTable,
    EstimatedScore,
    ScoredSpan,
    best_threshold,
    calibration,
    error_table,
    estimated_scores,
    f1_above,
    lenient_scores,
    seen_and_unseen,
)
from xlner.soft_labels.store import SoftLabels, read_card
from xlner.tagger import Tagger, load_tagger
from xlner.tags import OUTSIDE, LabelMap, Span, spans_of, split_tag, tags_of
from xlner.train.run import read_report

Result = TypeVar("Result")
BLOCK = 64  # sentences that a model tags at a time
# Keys of metrics.jsonl that are neither losses nor scores.
_NO_SCORES = frozenset(("step", "epoch", "learning_rate", "words_per_second", "types"))
# The folders that steps of denoising leave, by the name that recipes have for a step.
_STEP_FOLDERS = {"pooling": "pooled"}

# What a report says of a run.


@dataclass(frozen=True)
class GatherOptions:
    """What shall be computed anew."""

    data: str = ""  # folder of the corpora; empty: the recipe's
    sentences: int = 2000  # that a model tags of a corpus, at most; 0: no model is run
    device: str = "cpu"
    tunes: bool = True  # whether thresholds are stored in the model folder
    seed: int = 0


@dataclass(frozen=True)
class TestScores:
    """What the predictions tell that a run kept of its test set."""

    sentences: int
    scores: Mapping[str, EstimatedScore]
    lenient: Mapping[str, tuple[float, float, float]]
    errors: ErrorTable


@dataclass(frozen=True)
class Seen:
    """Scores of entities that stand in the training text, and of others; `text` is its path, of so many sentences."""

    text: str
    sentences: int
    scores: Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True)
class ModelAnswers:
    """How sure a model is, and how often it is right, on a corpus or a part of it."""

    corpus: str
    sentences: int
    entities: Calibration
    words: Calibration


@dataclass(frozen=True)
class Tuning:
    """Thresholds by type of the model, and F1 on dev and test (in percent, None without a test) before and after."""

    corpus: str
    sentences: int
    of_target: bool  # whether labels of the target language chose them
    thresholds: Mapping[str, float]
    dev_f1: tuple[float, float]
    test_f1: tuple[float, float] | None
    stored: str  # path; empty: not stored


@dataclass(frozen=True)
class AgainstTeacher:
    """What teacher and student make of the test set, or of a part of it; keys: `both`, `student`, `teacher` (alone).

    Attributes:
        sentences: How many both have tagged.
        found: Entities of the corpus, by who finds just them; also `neither`.
        wrong: Predicted entities that the corpus does not have, by whose they are.
        examples: Words of a sentence, and the entity there that one of them alone finds.
    """

    sentences: int
    found: Mapping[str, int]
    wrong: Mapping[str, int]
    examples: Mapping[str, Sequence[tuple[tuple[str, ...], Span]]]


@dataclass(frozen=True)
class Flips:
    """What denoising did to the teacher's labels, in words: by type before and after, and which words most often."""

    summary: Mapping[str, float]
    types: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    words: Sequence[tuple[str, str, str, int]] = ()


@dataclass(frozen=True)
class Curves:
    """Points (step, value) by name."""

    losses: Mapping[str, Sequence[tuple[float, float]]]
    scores: Mapping[str, Sequence[tuple[float, float]]]


@dataclass
class RunReport:
    """All that is known of a run; None for what is not, and `notes` say why."""

    path: str
    name: str
    kind: str  # teacher, student, encoder
    language: str
    state: str  # finished, running, stopped, failed, unknown
    recipe: str
    about: Mapping[str, Any]  # report.json as it is
    scores: Mapping[str, Mapping[str, float]]  # F1 by type, as the run noted it, by model or corpus
    notes: list[str] = field(default_factory=list)
    test: TestScores | None = None
    seen: Seen | None = None
    answers: ModelAnswers | None = None
    tuning: Tuning | None = None
    teacher: AgainstTeacher | None = None
    flips: Flips | None = None
    curves: Curves | None = None


def gather(path: Path, options: GatherOptions) -> RunReport:
    """Read a run, and compute what it does not store.

    Raises:
        RunError: If the folder is no run.
    """
    report, recipe_text, recipe = _run_files(path)
    notes: list[str] = []
    state = "finished" if report is not None else _state(path, notes)
    about = report or {}
    kind = "student" if "teacher" in recipe else "teacher" if "language" in recipe else "encoder"
    language = str(recipe.get("target") or recipe.get("language") or "")
    found = RunReport(
        str(path), path.resolve().name, kind, language, state, recipe_text, about, _noted_scores(about, notes), notes
    )
    found.curves = _attempt_to_read(notes, "learning curves", lambda: _curves(path))
    found.flips = _attempt_to_read(notes, "account of denoising", lambda: _flips(path, about, recipe, notes))
    if state == "finished" and kind != "encoder":
        _add_scores(found, path, recipe, options)
    return found


def _attempt(notes: list[str], what: str, job: Callable[[], Result]) -> Result | None:
    """The result of a job; None, and a note, where the run or its surroundings do not allow it."""
    try:
        return job()
    except (XlnerError, OSError) as problem:
        notes.append(f"no {what}: {problem}")
    return None


def _attempt_to_read(notes: list[str], what: str, job: Callable[[], Result]) -> Result | None:
    """As `_attempt`, of a job that reads files whose content may be of any kind."""
    try:
        return _attempt(notes, what, job)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        notes.append(f"no {what}: a file of the run is damaged ({problem!r})")
    return None


# The files of a run.


def _run_files(path: Path) -> tuple[dict[str, Any] | None, str, dict[str, Any]]:
    """report.json (None of a run that has not finished), and the recipe as text and as a tree."""
    if not path.is_dir():
        raise RunError(f"{path}: no such folder; expected the folder of a run, such as runs/de")
    try:
        text = (path / "recipe.yaml").read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
        if not isinstance(recipe, dict) or not {"optimization", "hardware"} <= recipe.keys():
            raise RunError(f"{path / 'recipe.yaml'}: is no recipe that a run wrote; expected the folder of a run")
    except OSError as problem:
        raise RunError(f"{path}: is no run: {Path(str(problem.filename)).name} cannot be read there") from problem
    except (ValueError, yaml.YAMLError) as problem:
        raise RunError(f"{path / 'recipe.yaml'}: is damaged: {' '.join(str(problem).split())}") from problem
    return read_report(path), text, recipe


def part_of(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a tree that is one itself; empty where it is missing or anything else."""
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}


def _state(path: Path, notes: list[str]) -> str:
    if (path / "report.json").exists():
        notes.append("report.json is empty or damaged: the run's own scores are not known")
    try:
        status = json.loads((path / "status.json").read_text(encoding="utf-8"))
        state = str(status["state"])
        message = f": {status['message']}" if status.get("message") else ""
        notes.append(f"the run has not finished; status.json says {state} since {status['time']}{message}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        notes.append("the run has not finished, and no status.json tells why")
        return "unknown"
    return state


def _noted_scores(about: Mapping[str, Any], notes: list[str]) -> dict[str, dict[str, float]]:
    """What `f1_by_type` finds, by what report.json calls the scores."""
    found = {}
    for name, scores in part_of(about, "scores").items():
        if not scores:
            continue
        if by_type := f1_by_type(scores):
            found[str(name)] = by_type
        else:
            notes.append(f"report.json: the scores of {name} are damaged")
    return found


def _curves(path: Path) -> Curves | None:
    losses: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, list[tuple[float, float]]] = {}
    for line in read_lines(path / "metrics.jsonl"):
        record = json.loads(line)
        for name, value in record.items():
            if name in _NO_SCORES or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            table = losses if name.startswith("loss") else scores
            table.setdefault(name, []).append((float(record["step"]), float(value)))
    # A term of weight 0 is no curve; of a single term the sum says it all.
    losses = {name: line for name, line in losses.items() if any(value for _, value in line)}
    if len(losses) == 2:
        losses = {name: line for name, line in losses.items() if name == "loss"} or losses
    return Curves(losses, scores) if losses or scores else None


# Test set, training text and models.


class _Surroundings(NamedTuple):
    """Of a run: its recipe, how its corpora are read, and how types of its models are called there."""

    recipe: Mapping[str, Any]
    corpus: CorpusRecipe
    data: str
    label_map: LabelMap

    @classmethod
    def of(cls, recipe: Mapping[str, Any], data: str) -> "_Surroundings":
        own = part_of(recipe, "corpus")
        known = {spec.name: own[spec.name] for spec in fields(CorpusRecipe) if spec.name in own}
        corpus = CorpusRecipe(**known)
        label_map = LabelMap.parse(str(part_of(recipe, "labels").get("map") or ""))
        return cls(recipe, corpus, data or str(recipe.get("data") or ""), label_map)


def _add_scores(found: RunReport, path: Path, recipe: Mapping[str, Any], options: GatherOptions) -> None:
    notes = found.notes
    around = _attempt_to_read(notes, "corpora", lambda: _Surroundings.of(recipe, options.data))
    test = _attempt(notes, "scores of a test set", lambda: _predictions(path, "test"))
    generator = np.random.default_rng(options.seed)
    if test:
        found.test = _test_scores(test, generator)
        if around:
            found.seen = _attempt_to_read(
                notes, "scores of seen and unseen entities", lambda: _seen(found, around, test or [])
            )
    if not options.sentences or not around:
        return
    dev = _attempt(notes, "tuned thresholds", lambda: _dev(path, found, around))
    if not test and not dev:
        return
    tagger = _attempt(notes, "calibration and thresholds", lambda: _open(path / "model", options))
    if tagger is None:
        return
    rename = around.label_map.for_predictions()
    tagged = _tag(tagger, _sample(test or [], options, generator), f"{found.name}: test", rename)
    if test:
        found.answers = ModelAnswers(
            _corpus_name(found.about, "test"),
            len(tagged),
            calibration(*_columns([one for sentence in tagged for one in sentence.spans])),
            calibration(*_word_columns(tagged)),
        )
    if dev:
        of_dev = _tag(tagger, _sample(dev.sentences, options, generator), f"{found.name}: dev", rename)
        found.tuning = _tuned(tagger, of_dev, tagged, dev, path, around, options, notes)
    if test and found.kind == "student":
        found.teacher = _attempt(
            notes, "comparison with the teacher", lambda: _against_teacher(tagged, around, generator, options)
        )


def _predictions(path: Path, corpus: str) -> list[TaggedSentence]:
    file = path / f"predictions-{corpus}.conll"
    if not file.is_file():
        raise RunError(f"the run keeps no {file.name}; was there a labelled corpus?")
    return read_predictions(file)


def _corpus_name(about: Mapping[str, Any], corpus: str) -> str:
    own = part_of(part_of(about, "corpora"), corpus)
    return str(own.get("corpus_name") or own.get("path") or corpus)


def _test_scores(test: Sequence[TaggedSentence], generator: np.random.Generator) -> TestScores:
    return TestScores(
        len(test),
        estimated_scores(sentence_counts(test), generator),
        lenient_scores(test),
        error_table(test, generator),
    )


def _seen(found: RunReport, around: _Surroundings, test: Sequence[TaggedSentence]) -> Seen:
    """By the training text, if it still is that of the run."""
    if found.kind == "teacher":
        told = part_of(found.about, "corpora")["train"]
        path: Path | None = find_corpus(around.data, found.language, "train") or Path(told["path"])
        limit, mark = 0, told["fingerprint"]
    else:
        own = str(around.recipe.get("text") or "")
        path = Path(own) if own else find_corpus(around.data, found.language, "train")
        limit, mark = around.corpus.max_sentences, found.about["text"]["fingerprint"]
    if path is None or not path.exists():
        place = path or f"{around.data}/{found.language}"
        raise RunError(f"the training text is not at {place}; --data names the folder of the corpora")
    fingerprint, n_sentences = CorpusFingerprint(), 0

    def read() -> Iterator[tuple[str, ...]]:
        nonlocal n_sentences
        stream = text_stream(path, around.corpus)
        for sentence in tqdm(
            islice(stream, limit or None), f"{found.name}: training text", disable=None, unit=" sentences"
        ):
            fingerprint.add(sentence)
            n_sentences += 1
            yield sentence.words

    scores = seen_and_unseen(test, read())
    # That of a teacher's text is one of words and tags, which are not read here.
    if found.kind == "student" and fingerprint.hexdigest() != mark:
        found.notes.append(
            f"{path}: is not the text that the student learnt from; seen and unseen are by what it is now"
        )
    return Seen(str(path), n_sentences, scores)


class _Dev(NamedTuple):
    name: str
    sentences: list[TaggedSentence]
    of_target: bool


def _dev(path: Path, found: RunReport, around: _Surroundings) -> _Dev:
    """The dev corpus: what a teacher keeps of it, or the labelled one of the data folder."""
    if (path / "predictions-dev.conll").is_file():
        return _Dev(_corpus_name(found.about, "dev"), _predictions(path, "dev"), False)
    file = find_corpus(around.data, found.language, "dev")
    if file is None:
        raise RunError(f"no dev corpus of {found.language} in {around.data or 'the data folder'}; see --data")
    corpus = read_labelled(file, around.corpus)
    gold = [frozenset(spans_of(around.label_map.apply(tags))) for tags in corpus.tags]
    rows = [TaggedSentence(words, spans, frozenset()) for words, spans in zip(corpus.words, gold, strict=True)]
    return _Dev(corpus.known_as or str(file), rows, found.kind == "student")


def _open(folder: Path, options: GatherOptions) -> Tagger:
    if not folder.is_dir():
        raise RunError(f"the model is not at {folder} any more")
    return load_tagger(folder, device=options.device)


def _sample(
    sentences: Sequence[TaggedSentence], options: GatherOptions, generator: np.random.Generator
) -> list[TaggedSentence]:
    if len(sentences) <= options.sentences:
        return list(sentences)
    chosen = generator.choice(len(sentences), size=options.sentences, replace=False)
    return [sentences[number] for number in sorted(chosen)]


class _Answers(NamedTuple):
    """What a model says of a sentence: its entities with the model's own types, and its words (score, right or not)."""

    sentence: TaggedSentence
    spans: list[ScoredSpan]  # types as the corpus calls them
    found: frozenset[Span]
    words: list[tuple[float, bool]]


def _tag(tagger: Tagger, sentences: Sequence[TaggedSentence], what: str, rename: LabelMap) -> list[_Answers]:
    """Tag sentences again, with scores; types that the map drops are left out."""
    decoder, answers = ValidTags(tagger.labels), list[_Answers]()
    tags = [_renamed(tag, rename) for tag in tagger.labels.tags]
    with tqdm(total=len(sentences), desc=what, disable=None, unit=" sentences", dynamic_ncols=True) as bar:
        for start in range(0, len(sentences), BLOCK):
            block = sentences[start : start + BLOCK]
            probs = tagger.probs([sentence.words for sentence in block])
            for sentence, rows, entities in zip(block, probs, decoder.entities(probs), strict=True):
                spans, found = [], set()
                for span, score in entities:
                    if label := rename.type_of(span.label):
                        own = Span(label, span.start, span.end)
                        found.add(own)
                        spans.append(ScoredSpan(label, score, own in sentence.gold))
                gold = tags_of(sentence.gold, len(sentence.words))
                words = [
                    (float(row.max()), tags[int(row.argmax())] == tag)
                    for row, tag in zip(rows, gold, strict=True)
                    if row.any()
                ]
                answers.append(_Answers(sentence, spans, frozenset(found), words))
            bar.update(len(block))
    return answers


def _renamed(tag: str, rename: LabelMap) -> str:
    prefix, name = split_tag(tag)
    new = rename.type_of(name) if name else ""
    return f"{prefix}-{new}" if new else OUTSIDE


def _columns(spans: Sequence[ScoredSpan]) -> tuple[list[float], list[bool]]:
    return [span.score for span in spans], [span.is_right for span in spans]


def _word_columns(answers: Sequence[_Answers]) -> tuple[list[float], list[bool]]:
    words = [word for answer in answers for word in answer.words]
    return [score for score, _ in words], [is_right for _, is_right in words]


def _tuned(
    tagger: Tagger,
    dev: Sequence[_Answers],
    test: Sequence[_Answers],
    corpus: _Dev,
    path: Path,
    around: _Surroundings,
    options: GatherOptions,
    notes: list[str],
) -> Tuning:
    """The best threshold of each type by the dev corpus, stored in the model folder."""
    of_type = Counter(span.label for answer in dev for span in answer.sentence.gold)
    spans = [span for answer in dev for span in answer.spans]
    by_type = {
        name: best_threshold([(span.score, span.is_right) for span in spans if span.label == name], number)[0]
        for name, number in of_type.items()
    }
    rename = around.label_map.for_predictions()
    own = {name: by_type[new] for name in tagger.types if (new := rename.type_of(name)) in by_type}
    stored = ""
    if options.tunes and own:
        file = path / "model" / THRESHOLDS_FILE
        content = {"thresholds": own, "corpus": corpus.name, "sentences": len(dev), "of_target": corpus.of_target}
        try:
            write_text(file, to_json(content, indent=2) + "\n")
            stored = str(file)
        except RunError as problem:
            notes.append(f"thresholds are not stored: {problem}")
    return Tuning(
        corpus.name,
        len(dev),
        corpus.of_target,
        own,
        _before_and_after(dev, by_type),
        _before_and_after(test, by_type) if test else None,
        stored,
    )


def _before_and_after(answers: Sequence[_Answers], thresholds: Mapping[str, float]) -> tuple[float, float]:
    spans = [span for answer in answers for span in answer.spans]
    n_gold = sum(len(answer.sentence.gold) for answer in answers)
    return f1_above(spans, {}, n_gold), f1_above(spans, thresholds, n_gold)


def _against_teacher(
    student: Sequence[_Answers], around: _Surroundings, generator: np.random.Generator, options: GatherOptions
) -> AgainstTeacher:
    """By the first teacher that is a model."""
    names = [name.strip() for name in str(around.recipe.get("teacher") or "").split(",")]
    folder = next((Path(name) for name in names if Path(name).is_dir()), None)
    if folder is None:
        raise RunError(f"the teacher is not at {', '.join(names) or 'any path'} any more")
    first = LabelMap.parse(str(part_of(around.recipe, "mixing").get("rename") or ""))
    then = around.label_map.for_predictions()
    tagger = load_tagger(folder, device=options.device)
    joined = LabelMap({name: then.type_of(new) if (new := first.type_of(name)) else "" for name in tagger.types})
    sentences = [answer.sentence for answer in student]
    teacher = _tag(tagger, sentences, "teacher: test", joined)
    found: dict[str, list[tuple[tuple[str, ...], Span]]] = {name: [] for name in (*_SIDES.values(), "neither")}
    wrong = dict.fromkeys(_SIDES.values(), 0)
    for sentence, own, other in zip(sentences, student, teacher, strict=True):
        for span in sorted(sentence.gold):
            found[_SIDES.get((span in own.found, span in other.found), "neither")].append((sentence.words, span))
        for span in (own.found | other.found) - sentence.gold:
            wrong[_SIDES[span in own.found, span in other.found]] += 1
    examples = {
        name: [found[name][number] for number in generator.permutation(len(found[name]))[:6]]
        for name in ("student", "teacher")
    }
    return AgainstTeacher(len(sentences), {name: len(spans) for name, spans in found.items()}, wrong, examples)


# Who has an entity: the student, the teacher.
_SIDES = {(True, True): "both", (True, False): "student", (False, True): "teacher"}


# What denoising changed.


def _flips(path: Path, about: Mapping[str, Any], recipe: Mapping[str, Any], notes: list[str]) -> Flips | None:
    summary = about.get("labels")
    if not isinstance(summary, Mapping):
        return None
    for before, after in _stored_labels(path, about, recipe):
        types, words = _flipped(before, after)
        changed = {
            "removed": sum(row.get("", 0) for name, row in types.items() if name),
            "added": sum(types.get("", {}).values()),
        }
        if all(changed[name] == summary.get(name) for name in changed):  # else they are of other settings
            return Flips(summary, types, words)
    if str(recipe.get("denoising") or "none") != "none":
        notes.append("which words denoising flipped is not known: the run's soft labels are not stored any more")
    return Flips(summary)


def _stored_labels(
    path: Path, about: Mapping[str, Any], recipe: Mapping[str, Any]
) -> Iterator[tuple[SoftLabels, SoftLabels]]:
    """Soft labels that may be those of the run, before and after denoising."""
    own = str(recipe.get("soft_labels") or "auto")
    if own != "auto":
        folders: Iterable[Path] = [Path(own)]
    else:
        name = f"{about['teacher']['fingerprint']}-{about['text']['fingerprint']}-*"
        places = [*path.resolve().parents[:3], RUNS.resolve()]  # of a run that was moved with all that it made, too
        roots = dict.fromkeys(place / "soft-labels" for place in places)
        folders = [folder for root in roots for folder in sorted(root.glob(name))]
    steps = [step.strip() for step in str(recipe.get("denoising") or "").split(",") if step.strip() not in ("", "none")]
    for folder in folders:
        last = [folder]
        for step in steps:
            last = [
                inner
                for outer in last
                for inner in sorted(outer.glob(f"{_STEP_FOLDERS.get(step, step)}-*"))
                if read_card(inner)
            ]
        if read_card(folder):
            yield from ((SoftLabels(folder), SoftLabels(inner)) for inner in last if inner != folder)


def _flipped(
    before: SoftLabels, after: SoftLabels
) -> tuple[dict[str, dict[str, int]], list[tuple[str, str, str, int]]]:
    """Words by the type that the teacher gave them and the one that denoising did, where the two differ."""
    tags = before.card.tags
    names = [split_tag(tag)[1] for tag in tags]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    type_of, by_number = np.asarray([numbers[name] for name in names]), list(numbers)
    types: dict[str, Counter[str]] = {}
    words = Counter[tuple[str, str, str]]()
    for sentence in tqdm(range(len(before)), "soft labels", disable=None, unit=" sentences"):
        old, new = before.probs(sentence), after.probs(sentence)
        seen = old.any(axis=1)
        first, then = type_of[old.argmax(axis=1)], type_of[new.argmax(axis=1)]
        places = np.flatnonzero(seen & (first != then))
        if not len(places):
            continue
        own = before.words(sentence)
        for place in places:
            was, becomes = by_number[first[place]], by_number[then[place]]
            types.setdefault(was, Counter())[becomes] += 1
            words[own[place], was, becomes] += 1
    table = {name: dict(row) for name, row in sorted(types.items())}
    return table, [(word, was, becomes, number) for (word, was, becomes), number in words.most_common(15)]
