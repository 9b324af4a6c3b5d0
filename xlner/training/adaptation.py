"""Adaptation: an encoder goes on reading, unlabelled text of a target language, with pieces hidden.

    L = mean over hidden pieces of -log p(piece | the text around it)

Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1; translations: Conneau and Lample 2019 (arXiv:1901.07291).
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, overload

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn

from xlner.data.alignment import WordEncoder, load_tokenizer
from xlner.data.batches import length_order
from xlner.data.masked_text import TextRows, sentence_rows
from xlner.data.masking import MaskedBatch, MaskedTexts, Masker
from xlner.data.vocabulary import check_extendable, extend_tokenizer
from xlner.files import RUNS
from xlner.models.encoder import freeze
from xlner.models.files import revision_of
from xlner.models.folder import replaced_folder
from xlner.models.masked import MaskedModel, extend_embeddings, load_masked_network, save_encoder
from xlner.network_outputs import word_encoder
from xlner.recipe import Value
from xlner.schema import AdaptRecipe
from xlner.training.checkpoint import checkpoints
from xlner.training.corpora import Text, text_file
from xlner.training.fitting import fit_as_asked
from xlner.training.interruption import summed
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import write_report
from xlner.training.run_folder import FinishedRun, RunFolder, asked_recipe, open_run, run_path, start_run
from xlner.training.session import announce, make_accelerator
from xlner.training.task import Task
from xlner.training.texts import Words, describe_pieces, read_texts, refuse_unknown_text, told, training_rows

HELD_OUT_BATCH = 32  # sentences; part of what fixes the masks, so that no recipe key may change it


@overload
def adapt_encoder(recipe: AdaptRecipe, /, *, text: Text = "") -> FinishedRun: ...
@overload
def adapt_encoder(*, text: Text = "", **keys: Value) -> FinishedRun: ...
def adapt_encoder(recipe: AdaptRecipe | None = None, /, *, text: Text = "", **keys: Value) -> FinishedRun:
    """Train an encoder on unlabelled text and write its run folder.

        encoder = adapt_encoder(target="de", text="letters.txt", vocabulary={"new_pieces": 2000})

    Args:
        recipe: From `load_recipe("adapt", [...])`, or made in Python; instead of its keys.
        text: The unlabelled text: a file, sentences, lists of words, or a `datasets.Dataset` with a column of either;
            nothing: the file of `data`.
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
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        texts = read_texts(recipe, accelerator.print)
        set_seed(recipe.seed)  # a fresh head is drawn from here, alike in all processes
        revision = revision_of(recipe.encoder, recipe.encoder_revision)
        network, has_fresh_head = load_masked_network(recipe.encoder, revision)
        if has_fresh_head:
            accelerator.print(f"{recipe.encoder}: has no head that tells hidden pieces; it gets a fresh one")
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
            accelerator.print(f"pieces {when}: {told(found)}")
        refuse_unknown_text(list(pieces.values())[-1], texts)
        freeze(network, recipe.optimization.freeze)
        model = MaskedModel(network)
        masker = Masker(encoder.tokenizer, recipe.masking)
        rows = training_rows(encoder, texts, accelerator.print)
        held_out = HeldOut(accelerator, encoder, texts.held_out, masker)
        start_run(run, recipe)

        def keep(best: MaskedModel) -> None:
            save_encoder(run.model, best, encoder.tokenizer)

        before = held_out.loss(model.to(accelerator.device))
        progress = fit_as_asked(
            accelerator,
            model,
            adaptation_task(recipe, rows, MaskedTexts(rows, masker, encoder.pad_id), held_out, keep),
            run,
            recipe,
            made_of={"text": texts.fingerprint},
        )
        keeps_best = recipe.selection == "best"
        after = -math.log(progress.best_score / 100) if keeps_best else held_out.loss(model)
        accelerator.print(f"held-out text, nats a hidden piece: {before:.3f} before, {after:.3f} after")
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


class HeldOut:
    """Text that is not trained on, with masks that never change, to measure how well pieces are told."""

    def __init__(self, accelerator: Accelerator, encoder: WordEncoder, sentences: Words, masker: Masker) -> None:
        self._accelerator = accelerator
        self._autocast = autocast_dtype(accelerator.mixed_precision)
        rows = TextRows(sentence_rows(encoder, sentences))
        self._texts = MaskedTexts(rows, masker, encoder.pad_id)
        self._batches = length_order(rows.lengths, HELD_OUT_BATCH)

    def __bool__(self) -> bool:
        return bool(self._batches)

    def loss(self, model: MaskedModel) -> float:
        """Mean cross-entropy in nats per hidden piece, the processes sharing the work; 0 without any text."""
        was_training = model.training
        model.eval()
        loss, n_pieces = summed(self._accelerator, 2, lambda: self._share(model)).tolist()
        model.train(was_training)
        return float(loss / max(1.0, n_pieces))

    def _share(self, model: MaskedModel) -> Tensor:
        """The loss summed over this process's batches, and their hidden pieces, (2,)."""
        accelerator = self._accelerator
        total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        for number in range(accelerator.process_index, len(self._batches), accelerator.num_processes):
            made = self._texts.of_rows(self._batches[number], np.random.default_rng((0, number)))
            batch = send_to_device(made, accelerator.device)
            with (
                torch.inference_mode(),
                torch.autocast(accelerator.device.type, dtype=self._autocast, enabled=self._autocast is not None),
            ):
                total += torch.stack([masked_loss(model, batch).double(), counts(batch)[0]])
        return total


def adaptation_task(
    recipe: AdaptRecipe,
    rows: TextRows,
    texts: MaskedTexts,
    held_out: HeldOut,
    keep: Callable[[MaskedModel], None],
) -> Task[MaskedBatch]:
    """What the loop needs to train an encoder on hidden pieces."""

    def evaluate(model: MaskedModel) -> tuple[float, dict[str, Any]]:
        loss = held_out.loss(model)
        details = {"held_out_loss": round(loss, 6), "perplexity": round(float(np.exp(loss)), 3)}
        return 100.0 * float(np.exp(-loss)) if held_out else 0.0, details if held_out else {}

    return Task(
        lengths=rows.lengths,
        load=texts.batch,
        terms=("masked",),
        shares=(1.0,),
        counts=counts,
        loss_sums=loss_sums,
        evaluate=evaluate,
        keep=keep,
        # The geometric mean of the probabilities of the right pieces, in percent: 100 / perplexity.
        score_name="piece_probability",
        keep_best=recipe.selection == "best",
    )


def counts(batch: MaskedBatch) -> Tensor:
    """Hidden pieces, (1,)."""
    return torch.tensor([batch.masked_ids.numel()], device=batch.masked_ids.device)


def loss_sums(network: nn.Module, batch: MaskedBatch) -> Tensor:
    """The summed cross-entropy of the hidden pieces, (1,)."""
    return masked_loss(network, batch)[None]


def masked_loss(network: nn.Module, batch: MaskedBatch) -> Tensor:
    """Cross-entropy of the hidden pieces in nats, summed up; a scalar."""
    logits = network(batch.tokens.input_ids, batch.tokens.attention_mask, batch.masked_places)
    return F.cross_entropy(logits.float(), batch.masked_ids, reduction="sum")


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
