"""A small multilingual encoder, made on the spot.

    python recipes/demo/make_encoder.py --out runs/demo/encoder

Cased WordPiece and masked-language modelling, as BERT, on nothing but the demo's text to train on: no label, no dev
or test sentence. The languages share pieces, weights and names, and no parameter knows the language of a sentence;
few parameters leave the network little choice but to treat languages alike.

Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1; Dufter and Schuetze 2020 (arXiv:2005.00396).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xlner.data.alignment import WordEncoder
from xlner.errors import XlnerError
from xlner.sections import CorpusRecipe
from xlner.training.corpora import sentence_stream
from xlner.training.optimization import effective_precision

DATA = Path(__file__).parent
TEXTS = ("en/train.conll", "en/raw.txt", "de/train.txt", "es/train.txt")

VOCABULARY_SIZE = 3000
MAX_LENGTH = 96  # pieces, special ones included
HIDDEN_SIZE, N_LAYERS, N_HEADS = 128, 4, 4
BATCH_SIZE = 32  # sentences
LEARNING_RATE = 1e-3  # peak
WARMUP_RATIO = 0.06  # share of all steps
MASK_RATIO = 0.2  # share of the pieces to be guessed
# Special pieces come first, so that every id from here on is text.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, MASK, FIRST_PIECE = SPECIAL.index("[PAD]"), SPECIAL.index("[MASK]"), len(SPECIAL)


def main() -> int:
    """Make the encoder; the exit status."""
    parser = argparse.ArgumentParser(description="Make the demo's encoder.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo/encoder"), help="model folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--epochs", type=int, default=25, help="passes over the text")
    arguments = parser.parse_args()
    try:
        make_encoder(arguments.out, seed=arguments.seed, epochs=arguments.epochs)
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def make_encoder(out: Path, *, seed: int, epochs: int) -> None:
    """Learn pieces and weights from the demo's text, and write a Hugging Face model folder.

    Args:
        out: The folder; the weights come last, so that a folder with weights is whole.
        seed: Of every random choice; same seed, processor and number of threads: same encoder.
        epochs: Passes over the text.
    """
    sentences = [sentence.words for text in TEXTS for sentence in sentence_stream(DATA / text, CorpusRecipe())]
    tokenizer = learn_pieces(sentences)
    windows = [window.piece_ids for window in WordEncoder(tokenizer, MAX_LENGTH).encode(sentences)]
    print(f"encoder: {len(sentences):,} sentences, {sum(map(len, sentences)):,} words, {len(tokenizer):,} pieces")
    torch.manual_seed(seed)  # weights and dropout are drawn from here
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN_SIZE,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            intermediate_size=4 * HIDDEN_SIZE,
            max_position_embeddings=MAX_LENGTH,
            type_vocab_size=1,
            pad_token_id=PAD,
        )
    )
    learn_weights(model, windows, seed=seed, epochs=epochs)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    print(f"encoder: {out} ({model.num_parameters():,} parameters)")


def learn_pieces(sentences: Sequence[Sequence[str]]) -> PreTrainedTokenizerBase:
    """A cased WordPiece tokenizer; accents stay, as they tell languages and names apart."""
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the letters within words in an order that changes from run to run, and by these numbers
    # it decides between pieces that are equally frequent. Named as special pieces, they keep their numbers.
    letters = sorted({f"##{letter}" for sentence in sentences for word in sentence for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, min_frequency=2, special_tokens=[*SPECIAL, *letters], show_progress=False
    )
    learner.train_from_iterator(chain.from_iterable(sentences), trainer)
    # A tokenizer of its own, in which the letters are pieces like any other.
    backend = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        model_max_length=MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def learn_weights(model: BertForMaskedLM, windows: Sequence[NDArray[np.int32]], *, seed: int, epochs: int) -> None:
    """Masked-language modelling in place; the loss is taken at the masked pieces alone."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    n_steps = epochs * -(-len(windows) // BATCH_SIZE)
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = OneCycleLR(
        optimizer, LEARNING_RATE, n_steps, pct_start=WARMUP_RATIO, anneal_strategy="linear", cycle_momentum=False
    )
    with_bf16 = effective_precision("auto", cpu=True) == "bf16"
    model.train()
    with tqdm(total=n_steps, desc="encoder", unit="step", dynamic_ncols=True) as bar:
        for _ in range(epochs):
            for pieces in batches(windows, rng):
                shown, chosen = mask(pieces, model.config.vocab_size, generator)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=with_bf16):
                    hidden = model.bert(shown, attention_mask=pieces != PAD).last_hidden_state
                    logits = model.cls(hidden[chosen])
                loss = F.cross_entropy(logits.float(), pieces[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
                bar.update()


def batches(windows: Sequence[NDArray[np.int32]], rng: np.random.Generator) -> Iterator[Tensor]:
    """All windows once, in random batches of like length, padded; (B, P)."""
    lengths = np.asarray([len(window) for window in windows])
    order = np.argsort(lengths + rng.uniform(0, 8, len(windows)), kind="stable")
    starts = np.arange(0, len(order), BATCH_SIZE)
    for start in rng.permutation(starts):
        rows = [torch.from_numpy(windows[number]).long() for number in order[start : start + BATCH_SIZE]]
        yield torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def mask(pieces: Tensor, vocabulary_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose the pieces to be guessed: of these 80 % are shown as [MASK], 10 % as any piece, 10 % as they are.

    Args:
        pieces: Piece ids, (B, P).
        vocabulary_size: Of the tokenizer.
        generator: Of the random choices.

    Returns:
        What the network is shown, (B, P), and which pieces it must guess, a bool (B, P).
    """
    chosen = (torch.rand(pieces.shape, generator=generator) < MASK_RATIO) & (pieces >= FIRST_PIECE)
    fate = torch.rand(pieces.shape, generator=generator)
    anything = torch.randint(FIRST_PIECE, vocabulary_size, pieces.shape, generator=generator)
    shown = pieces.masked_fill(chosen & (fate < 0.8), MASK)
    return torch.where(chosen & (fate >= 0.9), anything, shown), chosen


if __name__ == "__main__":
    sys.exit(main())
