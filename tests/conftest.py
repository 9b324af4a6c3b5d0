"""What tests share: real corpora, and tiny models with tokenizers of every kind, made in memory."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from hypothesis import settings
from runs import TEACHER, TINY, run_well, write_corpora
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
)

from xlner.cli import main
from xlner.corpora.source import read_corpus
from xlner.models.compact import new_network
from xlner.models.compact_folder import write_student
from xlner.models.compact_words import hashed_encoder
from xlner.models.folder import save_model
from xlner.models.joint import JointModel, new_head
from xlner.models.settings import ModelSettings, Sizes, StudentSettings
from xlner.tags import LabelSet
from xlner.words import Sentence

REPOSITORY = Path(__file__).parent.parent
# The machines are shared: how long an example takes says nothing.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßé0123456789"
SIGNS = ".,;:!?'-()\"北京大学"
LABELS = LabelSet.of_types(["LOC", "ORG", "PER"])
SENTENCES = [
    "Angela Merkel besuchte Kiel .",
    "Die Siemens AG sitzt in München .",
    "In Berlin sprach Anna O'Brien mit der Zeitung .",
    "Ein ganz gewöhnlicher Satz ohne Namen ist dies hier .",
    "Der Fluss fließt durch Köln und Bonn nach Norden .",
]


# Folders of tests that take minutes a file. Begun first, they leave no core idle at the end.
LONGEST = ("runs", "web")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)


@pytest.fixture
def xlner(monkeypatch, capsys):
    """Runs the command line in this process, `stdin` bytes, a stream or closed; gives its status, stdout and stderr."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["xlner", *map(str, arguments)])
        source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        monkeypatch.setattr(sys, "stdin", None if source is None else io.TextIOWrapper(source))
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        return status or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora: XLNER_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("XLNER_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real corpora at {folder}; set XLNER_SHARED to their folder")
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Sentence]]:
    """Reads a text, given as str or bytes, as a corpus file; other arguments are those of `read_corpus`."""

    def read_text(content: str | bytes, name: str = "corpus.conll", **options: str) -> list[Sentence]:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_corpus(tmp_path / name, **options))

    return read_text


def word_piece_tokenizer() -> PreTrainedTokenizerBase:
    """Like mBERT's: WordPiece, cased, of letters and a few words; what it does not know becomes [UNK]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = LETTERS + LETTERS.upper().replace("SS", "")
    words = ["Angela", "Mer", "##kel", "Ki", "##el", "und", "die", "Ber", "##lin"]
    pieces = [*special, *letters, *SIGNS, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        **{f"{name}_token": piece for name, piece in names.items()},
    )


def unigram_tokenizer() -> PreTrainedTokenizerBase:
    """Like XLM-R's: Unigram pieces, a word's first one marked with an underline; states no length limit."""
    letters = LETTERS + LETTERS.upper().replace("SS", "") + SIGNS
    words = ["▁Angela", "▁Mer", "kel", "▁Ki", "el", "▁und", "▁die", "▁Ber", "lin"]
    scores = [(piece, -3.0) for piece in dict.fromkeys(["▁", *letters, *(f"▁{letter}" for letter in letters)])]
    vocabulary = [*((name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")), *scores]
    vocabulary += [(word, -2.0) for word in words] + [("<mask>", 0.0)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def byte_level_tokenizer() -> PreTrainedTokenizerBase:
    """Like RoBERTa's: byte-level BPE, a word's first piece marked by the space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet, "<mask>"])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


# Each kind of tokenizer that encoders come with.
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "word_piece": word_piece_tokenizer,
    "unigram": unigram_tokenizer,
    "byte_level": byte_level_tokenizer,
}


def tiny_model(tokenizer: PreTrainedTokenizerBase, *, kind: str = "bert", similarity: str = "") -> JointModel:
    """A random network of two layers, always the same; its weights are large, so that its tags vary."""
    torch.manual_seed(7)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.5,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(LABELS.tags)),
        "label2id": {tag: number for number, tag in enumerate(LABELS.tags)},
    }
    if kind == "bert":
        recognizer = BertForTokenClassification(BertConfig(max_position_embeddings=64, **sizes))
    else:
        # Positions 0 and 1 are padding's: 66 positions take 64 pieces.
        recognizer = XLMRobertaForTokenClassification(XLMRobertaConfig(max_position_embeddings=66, **sizes))
    return JointModel(recognizer.eval(), new_head(similarity, recognizer, 8) if similarity else None).eval()


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder of xlner: BERT with WordPiece, and a similarity head."""
    folder = tmp_path_factory.mktemp("bert") / "model"
    tokenizer = word_piece_tokenizer()
    settings = ModelSettings(language="de", similarity="calibrated", projection_size=8)
    save_model(folder, tiny_model(tokenizer, similarity="calibrated"), tokenizer, settings)
    return str(folder)


@pytest.fixture(scope="session")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plain Hugging Face folder, as others make them: XLM-R with Unigram pieces and no length limit stated."""
    folder = tmp_path_factory.mktemp("xlmr")
    tokenizer = unigram_tokenizer()
    tiny_model(tokenizer, kind="xlm-roberta").recognizer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder folder that brings nothing but a SentencePiece file for its tokenizer, as older ones do."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=60,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "sentencepiece.bpe.vocab").unlink()
    config = XLMRobertaConfig(vocab_size=70, tokenizer_class="XLMRobertaTokenizer", max_position_embeddings=66)
    config.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def linear(tmp_path):
    """A compact student with weights of chance, which needs no torch; transformers does not open it."""
    encoder = hashed_encoder(64)
    sizes = Sizes(0, 0, 0, 0, 0, 0, 0, 0, 64)
    settings = StudentSettings("linear", "softmax", ("O", "B-PER", "I-PER"), sizes, 64)
    network = new_network(settings, encoder.width)
    folder = tmp_path / "linear"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(value.shape, generator=generator).numpy() for name, value in network.state_dict().items()
    }
    write_student(folder, settings, weights, ModelSettings(language="de"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny networks are many times faster on one thread, above all where others compute beside the tests."""
    torch.set_num_threads(1)


def save_tiny_encoder(folder: Path, *, dropout: float) -> str:
    """A BERT encoder that has learnt nothing, small enough to be trained in a second."""
    tokenizer = word_piece_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an encoder with dropout, as real ones have it."""
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"), dropout=0.1)


@pytest.fixture(scope="session")
def still_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an encoder without dropout, for runs that must not depend on how work is shared out."""
    return save_tiny_encoder(tmp_path_factory.mktemp("still-encoder"), dropout=0.0)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small corpora: the labelled source `en`, the unlabelled target `de`."""
    folder = tmp_path_factory.mktemp("small") / "data"
    write_corpora(folder)
    return folder


@pytest.fixture(scope="session")
def teaching(tiny_encoder, small_data):
    """The arguments of a run of a teacher of both tasks, but its name."""
    return (f"encoder={tiny_encoder}", f"data={small_data}", "similarity_weight=1", *TINY)


@pytest.fixture(scope="session")
def teacher(teaching, tmp_path_factory):
    """The folder of a finished teacher; not to be changed."""
    place = tmp_path_factory.mktemp("teacher")
    run_well(TEACHER, *teaching, "run=first", cwd=place)
    return place / "runs" / "first"


@pytest.fixture(scope="session")
def learning(teacher, small_data):
    """The arguments of a student's run of both tasks, but its name and encoder: it starts as a copy of its teacher."""
    return ("target=de", "variant=calibrated", f"teacher={teacher / 'model'}", f"data={small_data}", *TINY)
