"""Adaptation: an encoder goes on reading, unlabelled text of a target language, with pieces hidden.

    L = mean over hidden pieces of -log p(piece | the text around it)

Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1; translations: Conneau and Lample 2019 (arXiv:1901.07291).
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from xlner.config.load import Value, choose
from xlner.config.schema import AdaptRecipe
from xlner.corpora.lines import existing_file, text_path
from xlner.corpora.source import read_pairs
from xlner.corpora.splits import CorpusTally, Text, text_file, text_stream
from xlner.encode import WordEncoder, load_tokenizer
from xlner.errors import CorpusError
from xlner.files import RUNS
from xlner.hub import revision_of
from xlner.models.folder import replaced_folder
from xlner.models.inference import word_encoder
from xlner.models.masked_lm import MaskedModel, extend_embeddings, load_masked_network, save_encoder
from xlner.models.token_classifier import ready_to_train
from xlner.models.vocabulary import check_extendable, extend_tokenizer
from xlner.train.checkpoint import checkpoints
from xlner.train.loop import Validation, fit
from xlner.train.masking import HiddenPieces, Masker, TextRows, pair_rows, sentence_rows, unknown_share
from xlner.train.report import write_report
from xlner.train.run import (
    FinishedRun,
    RunFolder,
    announce,
    asked_recipe,
    autocast_dtype,
    make_accelerator,
    open_run,
    run_path,
    start_run,
    summed,
)
from xlner.words import WORD_SPLITTERS, Sentence

LOG = logging.getLogger("xlner")

# The unlabelled text of an adaptation: target text in two parts, translations, other languages; and its pieces.


Words = Sequence[tuple[str, ...]]
Pairs = Sequence[tuple[Sentence, Sentence]]


class Texts(NamedTuple):
    """The words of all that is read: target text in two parts, translations, other text; and a hash of the first."""

    trained: Words
    held_out: Words
    pairs: Pairs
    other: Words
    fingerprint: str

    def counts(self) -> dict[str, int]:
        """How many sentences and pairs each part has."""
        return {name: len(part) for name, part in self._asdict().items() if name != "fingerprint"}


def read_texts(recipe: AdaptRecipe, say: Callable[[str], None]) -> Texts:
    """Read all that a recipe names.

    Raises:
        CorpusError: If a file is missing, cannot be read, or holds something else.
    """
    path = text_path(recipe.text, recipe.data, recipe.target)
    limit = recipe.corpus.max_sentences or None
    tally = CorpusTally()
    read = islice(text_stream(path, recipe.corpus), limit)
    target = [sentence.words for sentence in tally.over(read)]
    held_out, trained = split_text(len(target), recipe.holdout_ratio)
    if recipe.selection == "best" and not len(held_out):
        raise CorpusError(
            f"{path}: found {len(target):,} sentences, of which holdout_ratio={recipe.holdout_ratio:g} is none; "
            "expected more text, or a larger holdout_ratio, or selection=last"
        )
    pairs: Pairs = []
    if recipe.parallel:
        splitter = choose(WORD_SPLITTERS, recipe.corpus.word_splitter, "corpus.word_splitter")
        found = read_pairs(recipe.parallel, recipe.corpus.encoding, splitter)
        pairs = list(islice(found, recipe.max_pairs or None))
    other: Words = []
    if recipe.other_text:
        every = [sentence.words for sentence in text_stream(existing_file(recipe.other_text), recipe.corpus)]
        wanted = round((len(trained) + len(pairs)) * recipe.other_share / (1 - recipe.other_share))
        chosen = np.random.default_rng(recipe.seed).permutation(len(every))[:wanted]
        other = [every[number] for number in np.sort(chosen)]
        if wanted > len(every):
            say(f"{recipe.other_text}: holds {len(every):,} sentences, fewer than the {wanted:,} of other_share")
    fingerprint = tally.summary().words_fingerprint
    texts = Texts([target[n] for n in trained], [target[n] for n in held_out], pairs, other, fingerprint)
    say(
        f"{path}: {len(texts.trained):,} sentences to read, {len(texts.held_out):,} held out; "
        f"{len(pairs):,} translations, {len(other):,} sentences of other text"
    )
    return texts


def split_text(n_sentences: int, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Held-out and training sentences, in rising order; the same ones for every seed, so that runs compare."""
    order = np.random.default_rng(0).permutation(n_sentences)
    n_held_out = round(n_sentences * ratio)
    return np.sort(order[:n_held_out]), np.sort(order[n_held_out:])


def training_rows(encoder: WordEncoder, texts: Texts, say: Callable[[str], None]) -> TextRows:
    """All that is trained on, as rows of pieces."""
    rows = TextRows(
        chain(
            sentence_rows(encoder, texts.trained),
            pair_rows(encoder, texts.pairs) if texts.pairs else (),
            sentence_rows(encoder, texts.other),
        )
    )
    say(f"{len(rows):,} inputs of {len(rows.piece_ids) / max(1, len(rows)):.1f} pieces each, {rows.n_words:,} words")
    return rows


def describe_pieces(encoder: WordEncoder, sentences: Words) -> dict[str, float]:
    """Size of the vocabulary, share of unknown pieces among all of the text, and pieces per word."""
    rows = TextRows(sentence_rows(encoder, sentences))
    n_special = len(encoder.prefix) + len(encoder.suffix)
    share, per_word = unknown_share(rows, encoder.tokenizer.unk_token_id, n_special)
    return {"vocabulary": len(encoder.tokenizer), "unknown_share": round(share, 5), "per_word": round(per_word, 4)}


def spelling_line(found: dict[str, float]) -> str:
    """The same for a person."""
    new = f", {found['new_pieces']:,} of them new" if "new_pieces" in found else ""
    return (
        f"{found['vocabulary']:,} in the vocabulary{new}; {found['per_word']:.2f} a word of the text, "
        f"{100 * found['unknown_share']:.2f} % of them unknown"
    )


def refuse_unknown_text(found: dict[str, float], texts: Texts) -> None:
    """Refuse a text of which the tokenizer knows nothing.

    Raises:
        CorpusError: With what the text begins with.
    """
    if found["unknown_share"] == 1.0 or not found["per_word"]:
        examples = " ".join(texts.trained[0][:6])
        raise CorpusError(
            f"the tokenizer knows nothing of the text ({examples!r}, ...); expected text in a "
            "script of the encoder; set vocabulary.new_pieces to add what is missing, or take another encoder"
        )


HELD_OUT_BATCH = 32  # sentences; part of what fixes the masks, so that no recipe key may change it


def _network(encoder: str, revision: str) -> tuple[PreTrainedModel, bool]:
    """The network that goes on reading, and whether its head is a fresh one, which is told."""
    network, has_fresh_head = load_masked_network(encoder, revision)
    if has_fresh_head:
        LOG.warning(
            f"warning: {encoder}: has no head that tells hidden pieces, and gets a fresh one; such an encoder may lose "
            "more than it learns (docs/results.md): score a teacher of either"
        )
    return network, has_fresh_head


@overload
def adapt_encoder(recipe: AdaptRecipe, /, *, text: Text = "") -> FinishedRun: ...
@overload
def adapt_encoder(*, text: Text = "", **keys: Value) -> FinishedRun: ...
def adapt_encoder(recipe: AdaptRecipe | None = None, /, *, text: Text = "", **keys: Value) -> FinishedRun:
    """Train an encoder on unlabelled text and write its run folder.

        encoder = adapt_encoder(target="de", text="letters.txt", vocabulary={"new_pieces": 2000})

    Args:
        recipe: From `load_recipe("adapt", [...])`; instead of its keys.
        text: The unlabelled text: a file, sentences, lists of words, or a table of `datasets` or pandas with a column
            of either; nothing: the file of `data`.
        keys: Keys of the recipe, sections as dicts. They mean what they mean on the command line.

    Returns:
        The run: its `report`, its `path`, and its `model`, an encoder that teachers and students start from.

    Raises:
        XlnerError: One of its kinds, for whatever the user can mend; nothing is left half-written.
        StoppedError: If the run was interrupted; the same call goes on from there.
    """
    recipe = asked_recipe(AdaptRecipe, recipe, keys)
    if given := text_file(text, RUNS / "texts", recipe.corpus.format):
        recipe = replace(recipe, text=given)
    path = run_path(recipe.run, f"encoder-{recipe.target}")
    accelerator = make_accelerator(recipe.hardware, path, trackers=recipe.trackers)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        texts = read_texts(recipe, LOG.info)
        set_seed(recipe.seed)  # a fresh head is drawn from here, alike in all processes
        revision = revision_of(recipe.encoder, recipe.encoder_revision)
        network, has_fresh_head = _network(recipe.encoder, revision)
        encoder = word_encoder(recipe.encoder, network, recipe.corpus.max_length, revision=revision)
        Masker(encoder.tokenizer, recipe.masking)  # refuses a tokenizer without a mask before anything is written
        pieces = {"before": describe_pieces(encoder, texts.trained)}
        if recipe.vocabulary.new_pieces:
            check_extendable(encoder.tokenizer)
            start_run(run, recipe)
            extension = _extension(recipe, encoder, texts.trained, run, accelerator)
            encoder = WordEncoder(load_tokenizer(str(run.path / "tokenizer")), encoder.max_length)
            generator = torch.Generator().manual_seed(recipe.seed)
            extend_embeddings(network, extension.first_id, extension.parts, generator)
            pieces["after"] = describe_pieces(encoder, texts.trained)
            pieces["after"]["new_pieces"] = len(extension.parts)
        for when, found in pieces.items():
            LOG.info(f"pieces {when}: {spelling_line(found)}")
        refuse_unknown_text(list(pieces.values())[-1], texts)
        optimization = recipe.optimization
        ready_to_train(network, optimization.freeze, gradient_checkpointing=optimization.gradient_checkpointing)
        model = MaskedModel(network)
        masker = Masker(encoder.tokenizer, recipe.masking)
        rows = training_rows(encoder, texts, LOG.info)
        held_out = HeldOut(
            accelerator, encoder, texts.held_out, masker, run.model, keeps_best=recipe.selection == "best"
        )
        start_run(run, recipe)
        before = held_out.loss(model.to(accelerator.device))
        objective = HiddenPieces(rows, masker, encoder.pad_id)
        progress = fit(accelerator, model, objective, held_out, run, recipe, {"text": texts.fingerprint})
        after = -math.log(progress.best_score / 100) if held_out.keeps_best else held_out.loss(model)
        LOG.info(f"held-out text, nats a hidden piece: {before:.3f} before, {after:.3f} after")
        about = {
            "target": recipe.target,
            "seed": recipe.seed,
            "encoder": recipe.encoder,
            "fresh_head": has_fresh_head,
            "text": {"fingerprint": texts.fingerprint, **texts.counts()},
            "pieces": pieces,
            "held_out_loss": {"before": round(before, 5), "after": round(after, 5)},
        }
        write_report(run, accelerator, about, [], {}, progress)
    return FinishedRun(path)


class HeldOut(Validation):
    """Text that is not trained on, with masks that never change, to measure how well pieces are told."""

    # The geometric mean of the probabilities of the right pieces, in percent: 100 / perplexity.
    score_name = "piece_probability"

    def __init__(
        self,
        accelerator: Accelerator,
        encoder: WordEncoder,
        sentences: Words,
        masker: Masker,
        folder: Path,
        *,
        keeps_best: bool,
    ) -> None:
        """Hide pieces of sentences; the encoder to be kept is written to `folder`."""
        self._accelerator, self._folder, self._tokenizer = accelerator, folder, encoder.tokenizer
        self._autocast = autocast_dtype(accelerator.mixed_precision)
        self.keeps_best = keeps_best
        self._objective = HiddenPieces(TextRows(sentence_rows(encoder, sentences)), masker, encoder.pad_id)
        # The longest batch comes first, so that memory that does not suffice is noticed at once.
        order = np.argsort(-self._objective.lengths, kind="stable")
        self._batches = [order[start : start + HELD_OUT_BATCH] for start in range(0, len(order), HELD_OUT_BATCH)]

    def score(self, network: MaskedModel) -> tuple[float, dict[str, Any]]:
        """See `Validation.score`."""
        if not self._batches:
            return 0.0, {}
        loss = self.loss(network)
        return 100.0 * math.exp(-loss), {"held_out_loss": round(loss, 6), "perplexity": round(math.exp(loss), 3)}

    def keep(self, network: MaskedModel) -> None:
        """See `Validation.keep`."""
        save_encoder(self._folder, network, self._tokenizer)

    def loss(self, network: MaskedModel) -> float:
        """Mean cross-entropy in nats per hidden piece, the processes sharing the work; 0 without any text."""
        was_training = network.training
        network.eval()
        loss, n_pieces = summed(self._accelerator, 2, lambda: self._share(network)).tolist()
        network.train(was_training)
        return float(loss / max(1.0, n_pieces))

    def _share(self, network: MaskedModel) -> Tensor:
        """The loss summed over this process's batches, and their hidden pieces, (2,)."""
        device = self._accelerator.device
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for number in range(self._accelerator.process_index, len(self._batches), self._accelerator.num_processes):
            made = self._objective.of_rows(self._batches[number], np.random.default_rng((0, number)))
            batch = send_to_device(made, device)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None),
            ):
                total[0] += self._objective.loss_sums(network, batch)["masked"].double()
            total[1] += len(batch.masked_ids)
        return total


class StoredExtension(NamedTuple):
    """As `Extension`, without the tokenizer, which lies in the run folder."""

    first_id: int
    parts: list[list[int]]


def _extension(
    recipe: AdaptRecipe, encoder: WordEncoder, sentences: Words, run: RunFolder, accelerator: Accelerator
) -> StoredExtension:
    """Learn new pieces once a run, in the main process: the trainers may end differently each time."""
    folder = run.path / "tokenizer"
    path = folder / "new_pieces.json"
    if accelerator.is_main_process and not (checkpoints(run.checkpoints) and path.is_file()):
        wanted = recipe.vocabulary
        words = Counter(chain.from_iterable(sentences))
        extension = extend_tokenizer(encoder.tokenizer, words, wanted.new_pieces, wanted.min_frequency)
        with replaced_folder(folder) as unfinished:
            extension.tokenizer.save_pretrained(unfinished)
            stored = {"first_id": extension.first_id, "parts": extension.parts}
            (unfinished / path.name).write_text(json.dumps(stored) + "\n", encoding="utf-8")
    accelerator.wait_for_everyone()
    return StoredExtension(**json.loads(path.read_text(encoding="utf-8")))
