"""A pipeline that spaCy trains on what taggers find in raw text, and opens by itself; as a folder or a wheel.

Silver annotation: a document has the tokens of spaCy's own tokenizer, because these are what the pipeline will see, and
the taggers' probabilities of their tags. Importing this module registers the component `xlner_soft_ner`, which learns
from these. Shapes: W words, T tokens of spaCy, C tags in IOB2, S states and A actions of spaCy's recognizer.
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.cli.init_config import init_config
from spacy.cli.package import package
from spacy.language import Language
from spacy.pipeline.ner import DEFAULT_NER_MODEL, EntityRecognizer  # type: ignore[import-not-found]  # compiled
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import filter_spans, load_config
from thinc.api import Config, Model

from xlner import __version__
from xlner.decoding import ValidTags
from xlner.errors import CorpusError, ModelError, RecipeError
from xlner.files import replaced
from xlner.predict import Probs, softmax
from xlner.spacy_component import whole_tokens
from xlner.tag_files.records import Record, in_chunks, record_words
from xlner.tagger import EnsembleTagger, Tagger, entity_at
from xlner.tags import OUTSIDE, LabelSet
from xlner.words import WordOffsets

HELD_OUT = 20  # of so many documents one is held out


class Learning(NamedTuple):
    """What a pipeline is, and how it learns."""

    language: str  # code; whose tokenizer of spaCy the pipeline has
    soft: bool = True  # from the taggers' probabilities, else from the entities that they find
    min_score: float = 0.0  # without `soft`: what is less likely is unknown, as `silver_docs` tells
    patterns: Path | None = None  # rules of spaCy's `entity_ruler`, JSON lines; where they match, they overrule
    seed: int = 0  # of the weights and the order
    max_steps: int = 20_000  # batches at most; it ends sooner where nothing gets better for 1,600


class SilverCounts(NamedTuple):
    """What a silver corpus holds; `unknown` counts the tokens that are annotated neither as entity nor as outside."""

    documents: int = 0
    tokens: int = 0
    entities: int = 0
    unknown: int = 0

    def with_doc(self, doc: Doc) -> "SilverCounts":
        """The counts with one document more."""
        unknown = sum(token.ent_iob == 0 for token in doc)
        return SilverCounts(
            self.documents + 1, self.tokens + len(doc), self.entities + len(doc.ents), self.unknown + unknown
        )


class Trained(NamedTuple):
    """What was made: the silver corpora, and F1 in percent of the entities of the held-out one."""

    train: SilverCounts
    dev: SilverCounts
    agreement: float


def check_target(target: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        ModelError: If it is a file, or a folder that holds something.
    """
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: is a file; expected a folder to make")
    if target.is_dir() and (names := sorted(path.name for path in target.iterdir())):
        raise ModelError(f"{target}: exists and holds {', '.join(names[:5])}; give another folder, or an empty one")


def export_pipeline(
    taggers: Sequence[Tagger],
    records: Iterable[Record],
    target: Path,
    learning: Learning,
    tell_tokens: Callable[[int], object] = lambda n_tokens: None,
) -> Trained:
    """Tag the records, train a pipeline of spaCy on them, and write it.

    Args:
        taggers: Of one set of types; several speak with one voice.
        records: Text or words; every twentieth is held out to choose the best state by.
        target: The folder to make.
        learning: How.
        tell_tokens: Called with the tokens of each document.

    Raises:
        ModelError: If the place is taken, spaCy does not know the language, or the taggers do not fit each other.
        CorpusError: If there are fewer than two records with words, or no entity is found in them.
        RunError: If the disk refuses.
        RecipeError: If the rules cannot be read.
    """
    check_target(target)
    nlp = blank(learning.language)
    if learning.patterns is not None:
        add_rules(blank(learning.language), learning.patterns)  # a mistake in them is told before the work
    ensemble = one_tagger(taggers)
    corpora = DocBin(store_user_data=learning.soft), DocBin(store_user_data=False)
    counts = [SilverCounts(), SilverCounts()]
    min_score = 0.0 if learning.soft else learning.min_score
    for number, doc in enumerate(silver_docs(nlp, ensemble, records, min_score=min_score)):
        part = int(number % HELD_OUT == 1)
        corpora[part].add(doc)
        counts[part] = counts[part].with_doc(doc)
        tell_tokens(len(doc))
    for purpose, found in zip(("learn from", "hold out"), counts, strict=True):
        if not found.entities:
            raise CorpusError(
                f"no entity in the {found.documents:,} records to {purpose}; is the text in the language of the model, "
                f"is there enough of it, is the least score ({learning.min_score:g}) too high?"
            )
    with replaced(target, check_target) as unfinished, tempfile.TemporaryDirectory() as place:
        paths = [Path(place, f"{name}.spacy") for name in ("train", "dev")]
        for corpus, path in zip(corpora, paths, strict=True):
            corpus.to_disk(path)
        best = train_pipeline(training_config(learning, *paths), Path(place))
        meta = _meta(target, learning.language)
        finished = finish_pipeline(best, unfinished, patterns=learning.patterns, meta=meta)
    return Trained(counts[0], counts[1], 100.0 * float(finished.meta["performance"].get("ents_f") or 0.0))


def _meta(target: Path, language: str) -> dict[str, object]:
    """What `meta.json` tells; the name is that of the folder, as a package can have it."""
    name = re.sub(r"[^a-z0-9]+", "_", target.resolve().name.lower()).strip("_").removeprefix(f"{language}_")
    return {
        "name": name or "ner",
        "version": "0.0.0",
        "description": f"Entities, learnt from the output of taggers by xlner {__version__}; "
        "`performance` is the agreement with these taggers on text that was held out.",
    }


# A trained pipeline as a wheel, which `pip` installs; made offline, by `spacy package` and `build`.


def build_wheel(pipeline: Path, folder: Path) -> Path:
    """The wheel of a pipeline, named as its `meta.json` says.

    Args:
        pipeline: A folder that `spacy.load` opens.
        folder: Where to put it; a wheel of the same name is replaced.

    Raises:
        ModelError: If `build` or `setuptools` is not installed, or fails.
    """
    with tempfile.TemporaryDirectory() as place:
        # Only the sources: spaCy would let `build` fetch setuptools from the network.
        with contextlib.redirect_stdout(sys.stderr):
            package(pipeline, Path(place), create_sdist=False, create_wheel=False)
        (source,) = Path(place).iterdir()
        done = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(source.glob("dist/*.whl"))
        if done.returncode or not found:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no wheel was made"]
            raise ModelError(
                f"{pipeline}: is written, but cannot be packaged ({reason[0].strip()}); "
                "a wheel needs `pip install build setuptools`"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(found[0], folder / found[0].name))


# Training by spaCy: a configuration of its own making, its trainer, and a folder that `spacy.load` opens by itself.


_EVALUATION_STEPS = 200


def blank(language: str) -> Language:
    """A pipeline with nothing but a tokenizer.

    Raises:
        ModelError: If spaCy does not know the language, or lacks a library for it.
    """
    try:
        return spacy.blank(language)
    except ImportError as problem:
        reason = " ".join(str(problem).split())
        raise ModelError(
            f"spaCy has no tokenizer for the language {language!r} ({reason}); "
            "name another by --lang: xx is its tokenizer for any language"
        ) from problem


def training_config(learning: Learning, train_path: Path, dev_path: Path) -> Config:
    """What `spacy init config --optimize efficiency` makes for an entity recognizer, with our data.

    Args:
        learning: How.
        train_path: Annotated documents (DocBin).
        dev_path: Others; the pipeline that does best on these is kept.
    """
    config = init_config(lang=learning.language, pipeline=["ner"], optimize="efficiency", silent=True)
    config["paths"].update({"train": str(train_path), "dev": str(dev_path)})
    config["system"]["seed"] = learning.seed
    often = min(_EVALUATION_STEPS, max(1, learning.max_steps // 5))
    config["training"].update({"max_steps": learning.max_steps, "eval_frequency": often})
    if learning.soft:
        # Only what the soft recognizer has, too: its settings become those of `ner` when it is trained.
        config["components"]["ner"] = {"factory": SOFT_NER, "model": config["components"]["ner"]["model"]}
    return config


def train_pipeline(config: Config, folder: Path) -> Path:
    """Train by spaCy's trainer, its table of progress on stderr.

    Args:
        config: Of `training_config`.
        folder: Gets `model-best` and `model-last`.

    Returns:
        The best pipeline, which needs nothing of xlner.
    """
    nlp = init_nlp(config)
    train(nlp, folder, stdout=sys.stderr, stderr=sys.stderr)
    best = folder / "model-best"
    _make_independent(best / "config.cfg")
    return best


def _make_independent(path: Path) -> None:
    """Take out of a trained pipeline's configuration what only training needed: our component, and paths."""
    config = load_config(path)
    config["paths"].update({"train": None, "dev": None})
    recognizer = config["components"]["ner"]
    if recognizer["factory"] == SOFT_NER:
        recognizer["factory"] = "ner"
    config.to_disk(path)


def finish_pipeline(folder: Path, target: Path, *, patterns: Path | None, meta: dict[str, Any]) -> Language:
    """Write a trained pipeline with its rules and what is told of it.

    Args:
        folder: What `train_pipeline` gives.
        target: The folder to make.
        patterns: Rules of spaCy's `entity_ruler`, JSON lines; where they match, they overrule the recognizer.
        meta: Entries of `meta.json`.

    Raises:
        RecipeError: If spaCy cannot read the rules.
    """
    nlp = spacy.load(folder)
    if patterns is not None:
        add_rules(nlp, patterns)
    nlp.meta.update(meta)
    nlp.to_disk(target)
    return nlp


def add_rules(nlp: Language, patterns: Path) -> None:
    """Add an `entity_ruler` behind everything else, which overwrites what it meets.

    Raises:
        RecipeError: If spaCy cannot read the file.
    """
    ruler = nlp.add_pipe("entity_ruler", config={"overwrite_ents": True, "validate": True})
    try:
        ruler.from_disk(patterns)  # type: ignore[attr-defined]  # the components that spaCy makes have no type
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise RecipeError(
            f"{patterns}: spaCy cannot read it as rules ({reason}); expected a file .jsonl with lines such as "
            '{"label": "ORG", "pattern": "Siemens AG"}'
        ) from problem
    if not len(ruler):  # type: ignore[arg-type]
        raise RecipeError(f"{patterns}: holds no rule")


# Text that taggers have tagged, as documents that spaCy learns from.


# In `doc.user_data` of a silver document: the probabilities of its tokens' tags, (T, C), and which tags these are.
TOKEN_PROBS = "xlner_token_probs"
TAGS = "xlner_tags"


def one_tagger(taggers: Sequence[Tagger]) -> Tagger:
    """Several taggers as one whose tags are IOB2: a pipeline of spaCy has one set of types, which each has to know.

    Raises:
        ModelError: If they know different types, or split text into words in different ways.
    """
    for number, tagger in enumerate(taggers[1:], 2):
        if set(tagger.types) != set(taggers[0].types):
            raise ModelError(
                f"model {number} knows the types {', '.join(tagger.types)}, the first one "
                f"{', '.join(taggers[0].types)}; taggers that label together must know the same"
            )
    return EnsembleTagger(taggers)


def silver_docs(nlp: Language, ensemble: Tagger, records: Iterable[Record], *, min_score: float = 0.0) -> Iterator[Doc]:
    """The records as documents with the entities that the taggers find; those without a word are left out.

    Text becomes spaCy's tokens, and entities are widened to whole ones; words that a record brings stay the tokens.
    Each document carries the probabilities of its tokens' tags, too.

    Args:
        nlp: Its tokenizer makes the tokens.
        ensemble: What tags.
        records: Of an input file.
        min_score: What is less likely than this is unknown, spaCy's *missing*, not outside: the tokens of an entity
            with a lower score, and tokens outside entities with a lower probability of being there.
    """
    decoder = ValidTags(ensemble.labels)
    for chunk in in_chunks(records):
        split = [record_words(record, ensemble.word_splitter) for record in chunk]
        probs = ensemble.probs([words for words, _ in split])
        for record, (words, offsets), rows, found in zip(chunk, split, probs, decoder.entities(probs), strict=True):
            if not words:
                continue
            if record.text is None or offsets is None:
                doc = Doc(nlp.vocab, words=list(words))
                offsets = [(token.idx, token.idx + len(token)) for token in doc]
            else:
                doc = nlp.make_doc(record.text)
            scores = whole_tokens(doc, [entity_at(doc.text, offsets, span, score) for span, score in found])
            of_tokens = token_probs(doc, offsets, rows, ensemble.labels)
            _annotate(doc, scores, of_tokens, min_score)
            doc.user_data[TOKEN_PROBS] = of_tokens
            doc.user_data[TAGS] = list(ensemble.labels.tags)
            yield doc


def _annotate(doc: Doc, scores: dict[Span, float], probs: Probs, min_score: float) -> None:
    """Set the entities; of two that share a token the longer one stays."""
    entities = filter_spans(scores)
    certain = [entity for entity in entities if scores[entity] >= min_score]
    inside = {token.i for entity in certain for token in entity}
    # A token of white space has no probabilities; it is surely no entity.
    doubtful = [n for n in range(len(doc)) if n not in inside and probs[n].any() and probs[n, 0] < min_score]
    doubtful += [token.i for entity in entities if scores[entity] < min_score for token in entity]
    doc.set_ents(certain, missing=[doc[n : n + 1] for n in sorted(set(doubtful))], default="outside")


def token_probs(doc: Doc, offsets: WordOffsets, probs: Probs, labels: LabelSet) -> Probs:
    """The probabilities of words' tags as those of spaCy's tokens.

    Of several words within a token the one speaks that is least likely to be outside. A word of several tokens
    begins an entity with its first one: B-X of the others is I-X.

    Args:
        doc: Its tokens.
        offsets: Of each word, (W), in characters of the document.
        probs: Of the words, (W, C).
        labels: Their tags: `O`, then B and I of each type.

    Returns:
        (T, C); zeros for tokens without a word.
    """
    assert labels.tags[0] == OUTSIDE
    found = np.zeros((len(doc), probs.shape[1]), dtype=np.float32)
    word = 0
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        while word < len(offsets) and offsets[word][1] <= start:
            word += 1
        last = word
        while last < len(offsets) and offsets[last][0] < end:
            last += 1
        if last == word or token.is_space:
            continue
        speaking = word + int(probs[word:last, 0].argmin())
        row = probs[speaking].copy()
        if offsets[word][0] < start:  # the word has begun in a token before
            row[2::2] += row[1::2]
            row[1::2] = 0.0
        found[token.i] = row
    return found


# spaCy's entity recognizer, taught by probabilities instead of by one annotation.
#
# The recognizer reads a text from left to right and chooses an action for each token: `O`, or to begin (`B`), continue
# (`I`), end (`L`) or, in one, begin and end (`U`) an entity of a type. spaCy's own loss knows actions that are right
# and such that are wrong; here an action is as right as the teacher holds it likely in the state that the recognizer
# is in. What is trained has the weights and the form of spaCy's `ner`, and is saved as such.


SOFT_NER = "xlner_soft_ner"
_ACTIONS = "xlner_action_probs"  # in `doc.user_data`, while training

Floats = NDArray[np.float32]


def closed_targets(probs: Floats, tags: Sequence[str], actions: Sequence[str]) -> Floats:
    """What to do with each token where no entity is open.

    With p_t the teacher's probabilities at token t, and words independent given the text as every tagger of words
    takes them to be, the targets are, normalised,

        O: p_t(O),    B-X: p_t(B-X) p_{t+1}(I-X),    U-X: p_t(B-X) (1 - p_{t+1}(I-X)).

    Args:
        probs: (T, C).
        tags: `O`, then B and I of each type, C of them.
        actions: Names of spaCy's actions, A of them.

    Returns:
        (T, A); rows of zeros where the teacher says nothing.
    """
    targets: Floats = np.zeros((len(probs), len(actions)), dtype=np.float32)
    continued = open_targets(probs)
    types = [tag[2:] for tag in tags[1::2]]
    for number, action in enumerate(actions):
        move, _, name = action.partition("-")
        if action == "O":
            targets[:, number] = probs[:, 0]
        elif move in ("B", "U") and name:
            place = types.index(name)
            share = continued[:, place] if move == "B" else 1 - continued[:, place]
            targets[:, number] = probs[:, 1 + 2 * place] * share
    total = targets.sum(axis=1, keepdims=True)
    targets /= np.where(total > 0, total, 1.0)
    return targets


def open_targets(probs: Floats) -> Floats:
    """How likely an entity of each type, once open, goes on behind each token, (T, types): `I`; else it ends: `L`."""
    following: Floats = np.zeros((len(probs), probs.shape[1] // 2), dtype=np.float32)
    following[:-1] = probs[1:, 2::2]
    return following


class SoftEntityRecognizer(EntityRecognizer):  # type: ignore[misc]  # compiled, so without a type
    """`ner`, but for its loss: documents that carry token probabilities are learnt from these."""

    def update(
        self, examples: Iterable[Example], *, drop: float = 0.0, sgd: Any = None, losses: dict[str, float] | None = None
    ) -> dict[str, float]:
        """Learn from a batch; the documents that are annotated hand their probabilities to those that are not."""
        examples = list(examples)
        for example in examples:
            known = example.reference.user_data
            if TOKEN_PROBS in known and len(known[TOKEN_PROBS]) == len(example.predicted):
                if _ACTIONS not in known:  # kept from epoch to epoch
                    probs = np.asarray(known[TOKEN_PROBS], dtype=np.float32)
                    types = [tag[2:] for tag in known[TAGS][1::2]]
                    columns = [types.index(name) for name in self.labels]  # types never found have no actions
                    continued = open_targets(probs)[:, columns]
                    known[_ACTIONS] = (closed_targets(probs, known[TAGS], self._actions()), continued)
                example.predicted.user_data[_ACTIONS] = known[_ACTIONS]
        found: dict[str, float] = super().update(examples, drop=drop, sgd=sgd, losses=losses)
        return found

    def get_batch_loss(self, states: Any, golds: Any, scores: Floats, losses: dict[str, float] | None) -> Floats:
        """The gradient of the cross-entropy between the recognizer's actions and the teacher's, (S, A).

        States of documents without probabilities, as of words that no teacher saw, teach nothing.
        """
        place = {name: number for number, name in enumerate(self._actions())}
        self.model.attrs["unseen_classes"].clear()  # spaCy bars actions that no annotation has asked for
        targets = np.zeros((len(states), len(place)), dtype=np.float32)
        for row, state in zip(targets, states, strict=True):
            closed, continued = state.doc.user_data.get(_ACTIONS, (None, None))
            if closed is None:
                continue
            token = state.B(0)
            if not state.entity_is_open():
                row[:] = closed[token]
                continue
            for number, name in enumerate(self.labels):
                if self.moves.is_valid(state, f"L-{name}"):
                    row[place[f"I-{name}"]] = continued[token, number]
                    row[place[f"L-{name}"]] = 1.0 - continued[token, number]
        gradient: Floats = softmax(np.asarray(scores, dtype=np.float32)) - targets
        gradient[targets.sum(axis=1) == 0] = 0.0
        if losses is not None:
            losses[self.name] = losses.get(self.name, 0.0) + float((gradient**2).sum())
        return gradient

    def _actions(self) -> list[str]:
        """The names of all actions in the order of their scores; `move_names` leaves out an internal one."""
        return [str(self.moves.get_class_name(number)) for number in range(self.moves.n_moves)]


@Language.factory(
    SOFT_NER,
    default_config={
        "model": DEFAULT_NER_MODEL,
        "update_with_oracle_cut_size": 100,
    },
    assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0},
)
def make_soft_ner(
    nlp: Language, name: str, model: Model[list[Doc], Any], update_with_oracle_cut_size: int
) -> SoftEntityRecognizer:
    """The component, as spaCy makes it from its settings."""
    return SoftEntityRecognizer(nlp.vocab, model, name=name, update_with_oracle_cut_size=update_with_oracle_cut_size)
