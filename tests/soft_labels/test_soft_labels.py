"""Soft labels: stored rows, whose they are, and how they meet the words of a student."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from conftest import LABELS, SENTENCES, TOKENIZERS, tiny_model, unigram_tokenizer, word_piece_tokenizer
from datasets.arrow_writer import ArrowWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlner.arrow_files import RowWriter, StoredRows, in_blocks
from xlner.config.load import load_recipe
from xlner.config.schema import CorpusRecipe
from xlner.encode import WordEncoder
from xlner.errors import CorpusError, RunError, SoftLabelError
from xlner.jobs.transformer_student import student_objective
from xlner.models.folder import load_joint_model, save_model
from xlner.models.inference import collate, sentence_probs
from xlner.models.settings import ModelSettings
from xlner.soft_labels import label as labelling
from xlner.soft_labels.label import soft_labels_of, teacher_fingerprint, text_fingerprint
from xlner.soft_labels.store import (
    BLOCK,
    CARD_FILE,
    FORMULAS,
    SoftLabelCard,
    SoftLabels,
    StoredWindows,
    part_length,
    part_path,
    read_card,
    soft_row,
    store_windows,
    write_card,
)
from xlner.soft_labels.store import COLUMNS as STORE_COLUMNS
from xlner.train.batches import Plan, plan_epoch
from xlner.train.objectives import CompactWords, SoftText, WordLoss

UNSEEN = "\u200b"  # a WordPiece tokenizer makes nothing of it
WORDS = [*(sentence.split() for sentence in SENTENCES), [UNSEEN], ["Kiel", UNSEEN, "Köln"], ["Ja"]]
CPU = torch.device("cpu")
FP16_STEP = 2**-10  # more than what fp16 loses of a probability
COLUMNS = {"words": "string", "probs": "float16", "places": "int64"}


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "train.conll"
    path.write_text("\n\n".join("\n".join(words) for words in WORDS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def label(accelerator):
    """Stores the soft labels of a teacher on a text."""

    def make(teacher, path, store):
        return soft_labels_of(
            str(teacher),
            Path(path),
            corpus=CorpusRecipe(),
            store=store,
            root=store,
            accelerator=accelerator,
            autocast_dtype=None,
        )

    return make


@pytest.fixture(scope="module")
def stored(label, bert_folder, text, tmp_path_factory):
    """The soft labels of the BERT teacher; not to be changed."""
    return label(bert_folder, text, tmp_path_factory.mktemp("stored") / "labels")


@pytest.fixture
def copied(stored, tmp_path):
    """A copy of them that may be damaged."""
    return Path(shutil.copytree(stored.folder, tmp_path / "copy"))


def row_of(words):
    return {
        "words": words,
        "probs": np.asarray([len(word) / 8 for word in words], dtype=np.float16),
        "places": np.arange(len(words)),
    }


def write_rows(path, rows, per_call=2):
    with RowWriter(path, COLUMNS) as writer:
        for block in in_blocks(rows, per_call):
            writer.write(block)


def read_rows(rows):
    return [
        {"words": rows.words(number, "words"), **{name: rows.row(number, name) for name in ("probs", "places")}}
        for number in range(len(rows))
    ]


def same_rows(found, expected):
    return len(found) == len(expected) and all(
        one["words"] == other["words"] and all(np.array_equal(one[name], other[name]) for name in ("probs", "places"))
        for one, other in zip(found, expected, strict=True)
    )


WORD_ROWS = st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(sentences=WORD_ROWS, per_call=st.integers(1, 5))
def test_rows_come_back_as_they_were_written(tmp_path, sentences, per_call):
    rows = [row_of(words) for words in sentences]

    write_rows(tmp_path / "rows.arrow", rows, per_call)
    stored_rows = StoredRows([tmp_path / "rows.arrow"])

    assert same_rows(read_rows(stored_rows), rows)
    assert stored_rows.lengths("probs").tolist() == [len(words) for words in sentences]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(sentences=WORD_ROWS, n_parts=st.integers(1, 4), block=st.integers(1, 4))
def test_parts_written_side_by_side_read_as_one(tmp_path, sentences, n_parts, block):
    rows = [row_of(words) for words in sentences]
    paths = [tmp_path / f"part-{part}.arrow" for part in range(n_parts)]

    for part, path in enumerate(paths):
        blocks = list(in_blocks(rows, block))[part::n_parts]
        write_rows(path, [row for rows_of_block in blocks for row in rows_of_block])
    stored_rows = StoredRows(paths, block)

    assert same_rows(read_rows(stored_rows), rows)
    assert stored_rows.lengths("words").tolist() == [len(words) for words in sentences]


def test_rows_are_views_of_the_file_and_not_copies(tmp_path):
    write_rows(tmp_path / "rows.arrow", [row_of(["Kiel"] * 1000)] * 50)
    before = pa.total_allocated_bytes()

    stored_rows = StoredRows([tmp_path / "rows.arrow"])
    views = [stored_rows.row(number, "places") for number in range(50)]

    assert not any(view.flags.owndata for view in views)
    assert pa.total_allocated_bytes() - before < views[0].nbytes


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    def write_and_stop():
        with RowWriter(tmp_path / "rows.arrow", COLUMNS) as writer:
            writer.write([row_of(["Kiel"])])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()

    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path, rows = tmp_path / "rows.arrow", [row_of(["Kiel", "und"]), row_of(["Köln"])]

    with RowWriter(path, COLUMNS) as first, RowWriter(path, COLUMNS) as second:
        first.write(rows)
        second.write(rows)

    assert same_rows(read_rows(StoredRows([path])), rows)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_words", [1, 3])
def test_soft_labels_are_the_teachers_probabilities(bert_folder, stored, n_words):
    model, encoder = load_joint_model(bert_folder).eval(), WordEncoder(word_piece_tokenizer())
    number = next(number for number, words in enumerate(WORDS) if len(words) == n_words)

    (expected,) = sentence_probs(model, encoder, [WORDS[number]], device=CPU)

    assert stored.words(number) == WORDS[number]
    np.testing.assert_allclose(stored.probs(number), expected, atol=FP16_STEP)


def test_the_card_tells_what_lies_in_the_folder(stored, bert_folder, text):
    card = stored.card

    head = load_joint_model(bert_folder).similarity
    assert (card.teacher, card.corpus) == (teacher_fingerprint(bert_folder), text_fingerprint(text, CorpusRecipe())[0])
    assert (card.tags, card.projection_size) == (LABELS.tags, 8)
    assert (card.scale, card.offset) == head.curve()
    assert (card.n_sentences, card.n_words, card.n_parts) == (len(WORDS), sum(map(len, WORDS)), 1)


def test_projections_give_the_teachers_similarity(stored, bert_folder):
    model, encoder = load_joint_model(bert_folder).eval(), WordEncoder(word_piece_tokenizer())
    (window,) = encoder.encode([WORDS[0]])
    tokens = collate([window], encoder.pad_id)

    projections = stored.projections(0).astype(np.float32)
    similarities = stored.similarities(projections[[0, 0]], projections[[0, 2]])

    output = model(*tokens, torch.tensor([[0, 0], [0, 2]]))
    expected = output.similarity_logits.sigmoid().detach().numpy()
    np.testing.assert_allclose(similarities, expected, atol=0.01)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "similarity.safetensors", "tokenizer.json"])
def test_a_teacher_with_one_changed_file_is_another_teacher(bert_folder, tmp_path, name):
    folder = Path(shutil.copytree(bert_folder, tmp_path / "copy"))
    unchanged = teacher_fingerprint(str(folder))

    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)

    assert unchanged == teacher_fingerprint(bert_folder)
    assert teacher_fingerprint(str(folder)) != unchanged


def test_a_text_is_known_by_its_words_whatever_its_format_and_labels(tmp_path):
    (tmp_path / "a.conll").write_text("Kiel\tB-LOC\n.\tO\n")
    (tmp_path / "a.txt").write_text("Kiel .\n")

    marks = [text_fingerprint(tmp_path / name, CorpusRecipe()) for name in ("a.conll", "a.txt")]

    assert marks[0].fingerprint == marks[1].fingerprint
    assert [mark.labelled for mark in marks] == [True, False]
    assert [mark.n_sentences for mark in marks] == [1, 1]


def test_a_text_cut_short_is_another_text(text):
    whole, part = (text_fingerprint(text, CorpusRecipe(max_sentences=n)) for n in (0, 3))

    assert whole != part


def test_stored_soft_labels_are_used_again_and_not_made_anew(label, bert_folder, text, stored):
    before = {path.name: path.stat().st_mtime_ns for path in stored.folder.iterdir()}

    again = label(bert_folder, text, stored.folder)

    assert again.card == stored.card
    assert {path.name: path.stat().st_mtime_ns for path in stored.folder.iterdir()} == before


def test_soft_labels_of_another_teacher_are_refused(label, xlmr_folder, text, stored):
    teacher = teacher_fingerprint(xlmr_folder)

    with pytest.raises(SoftLabelError, match=f"stale.*of teacher {stored.card.teacher}, this one is {teacher};"):
        label(xlmr_folder, text, stored.folder)


def test_soft_labels_of_another_text_are_refused(label, bert_folder, stored, tmp_path):
    (tmp_path / "other.txt").write_text("Ein anderer Satz .\n")

    with pytest.raises(SoftLabelError, match=f"stale.*of text {stored.card.corpus}, this one is"):
        label(bert_folder, tmp_path / "other.txt", stored.folder)


def remove_card(folder):
    (folder / CARD_FILE).unlink()


def halve_card(folder):
    path = folder / CARD_FILE
    path.write_text(path.read_text()[:40])


def add_unknown_key(folder):
    path = folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unknown": 1}))


def remove_part(folder):
    part_path(folder, 0).unlink()


def empty_part(folder):
    part_path(folder, 0).write_bytes(b"")


def halve_part(folder):
    content = part_path(folder, 0).read_bytes()
    part_path(folder, 0).write_bytes(content[: len(content) // 2])


def flip_a_number_of_the_card(folder):
    path = folder / CARD_FILE
    path.write_text(path.read_text().replace('"projection_size": 8', '"projection_size": 9'))


def take_the_part_of_others(folder):
    with RowWriter(part_path(folder, 0), STORE_COLUMNS) as writer:
        writer.write([soft_row(words, np.full((len(words), 7), 1 / 7), np.zeros((len(words), 8))) for words in WORDS])


def promise_one_sentence_more(folder):
    card = read_card(folder)
    write_card(folder, replace(card, n_sentences=card.n_sentences + 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_card, "no finished soft labels here"),
        (halve_card, "no card of soft labels.*remove the folder"),
        (add_unknown_key, "no card of soft labels.*remove the folder"),
        (remove_part, "damaged soft labels.*remove the folder"),
        (empty_part, "damaged soft labels.*remove the folder"),
        (halve_part, "damaged soft labels.*remove the folder"),
        (flip_a_number_of_the_card, "no card of soft labels.*not the file that was written.*remove the folder"),
        (promise_one_sentence_more, "expected 9 sentences, found 8; remove the folder"),
        (take_the_part_of_others, "a part is of other soft labels; remove the folder"),
    ],
)
def test_a_damaged_folder_is_refused(copied, damage, message):
    damage(copied)

    with pytest.raises(SoftLabelError, match=message):
        SoftLabels(copied)


@pytest.fixture
def flipped(tmp_path, copied):
    """Copies of the soft labels, each with another bit of the part's bytes changed."""
    path = part_path(copied, 0)
    content = path.read_bytes()

    def one_by_one():
        for place in range(0, len(content), 97):
            changed = bytearray(content)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            yield copied

    return one_by_one()


def test_one_changed_bit_anywhere_in_a_part_is_refused_before_anything_is_read(flipped):
    for folder in flipped:
        with pytest.raises(SoftLabelError, match=r"damaged soft labels.*remove the folder"):
            SoftLabels(folder)


@pytest.mark.parametrize("damage", [halve_card, halve_part, remove_part, take_the_part_of_others])
def test_damaged_soft_labels_of_a_cache_are_told_and_made_again(
    damage, bert_folder, text, accelerator, tmp_path, caplog
):
    def label():
        return soft_labels_of(
            str(bert_folder),
            text,
            corpus=CorpusRecipe(),
            store=None,
            root=tmp_path,
            accelerator=accelerator,
            autocast_dtype=None,
        )

    first = label()
    damage(first.folder)
    again = label()

    assert (again.folder, again.card) == (first.folder, first.card)
    assert "; made again" in caplog.text


def test_soft_labels_of_another_number_format_are_others(bert_folder, text, accelerator, stored, tmp_path):
    def label(store, number_format):
        return soft_labels_of(
            str(bert_folder),
            text,
            corpus=CorpusRecipe(),
            store=store,
            root=tmp_path,
            accelerator=accelerator,
            autocast_dtype=number_format,
        )

    with pytest.raises(SoftLabelError, match=r"stale.*were computed in fp32, this run computes in bf16"):
        label(stored.folder, torch.bfloat16)
    assert label(None, torch.bfloat16).folder != label(None, None).folder


def test_soft_labels_of_another_formula_are_refused(label, bert_folder, text, copied, monkeypatch):
    now = FORMULAS["labelled"]
    monkeypatch.setitem(FORMULAS, "labelled", 99)

    with pytest.raises(SoftLabelError, match=f"stale.*made by formula {now}, now it is 99"):
        label(bert_folder, text, copied)


@given(logits=st.lists(st.floats(-30, 30), min_size=2, max_size=9))
def test_stored_probabilities_keep_their_small_and_their_large_ones(logits):
    powers = np.exp(np.asarray(logits) - max(logits))
    probs = powers / powers.sum()

    stored = np.exp(soft_row(["Kiel"], probs[None], np.zeros((1, 0)))["log_probs"].astype(np.float32))
    found = stored / stored.sum()

    np.testing.assert_allclose(found, probs, rtol=0.02, atol=0)
    np.testing.assert_allclose(found, probs, atol=3e-4, rtol=0)
    assert found.min() > 0


def test_a_word_of_a_probability_of_exactly_1_has_it_again(tmp_path):
    rows = [soft_row(["Kiel", UNSEEN], np.asarray([[0.0, 1.0], [0.0, 0.0]]), np.zeros((2, 0)))]
    with RowWriter(part_path(tmp_path, 0), STORE_COLUMNS) as writer:
        writer.write(rows)
    write_card(tmp_path, SoftLabelCard("t", "c", ("O", "B-LOC"), 0, 1.0, 0.0, 1, 2, 1))

    assert SoftLabels(tmp_path).probs(0).tolist() == [[0, 1], [0, 0]]


def test_labelling_that_broke_off_leaves_no_finished_folder_and_can_be_done_again(label, bert_folder, tmp_path):
    # The mistake stands in the second block, so that the first one has been labelled by then.
    good = "Kiel\tO\n\n" * BLOCK
    path = tmp_path / "text.conll"
    path.write_text(f"{good}Köln\tO\tO\n")

    with pytest.raises(CorpusError, match="expected 2 columns"):
        label(bert_folder, path, tmp_path / "labels")
    path.write_text(good)
    soft_labels = label(bert_folder, path, tmp_path / "labels")

    assert len(soft_labels) == BLOCK


@pytest.fixture
def long_text(tmp_path):
    """A text of three parts."""
    path = tmp_path / "text.conll"
    path.write_text("".join(f"{WORDS[number % len(WORDS)][0]}\tO\n\n" for number in range(2 * BLOCK + 3)))
    return path


@pytest.fixture
def broken_off(label, bert_folder, long_text, tmp_path, monkeypatch):
    """A folder of soft labels whose making was stopped in the second part."""
    real, calls = labelling._Labeller.rows, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(labelling._Labeller, "rows", stopping)
        with pytest.raises(KeyboardInterrupt):
            label(bert_folder, long_text, tmp_path / "broken")
    assert sorted(path.name for path in (tmp_path / "broken").glob("*.arrow")) == ["part-0000.arrow"]
    return tmp_path / "broken"


def test_labelling_that_was_stopped_goes_on_after_its_last_part(label, bert_folder, long_text, broken_off, tmp_path):
    first = part_path(broken_off, 0).stat().st_mtime_ns

    found = label(bert_folder, long_text, broken_off)
    whole = label(bert_folder, long_text, tmp_path / "whole")

    assert part_path(broken_off, 0).stat().st_mtime_ns == first
    assert found.card == whole.card
    assert found.card.n_parts == 3
    assert [path.read_bytes() for path in sorted(broken_off.glob("*.arrow"))] == [
        path.read_bytes() for path in sorted(whole.folder.glob("*.arrow"))
    ]


def test_parts_of_another_number_format_are_made_anew(bert_folder, long_text, broken_off, accelerator):
    first = part_path(broken_off, 0).read_bytes()

    soft_labels_of(
        str(bert_folder),
        long_text,
        corpus=CorpusRecipe(),
        store=broken_off,
        root=broken_off,
        accelerator=accelerator,
        autocast_dtype=torch.bfloat16,
    )

    assert part_path(broken_off, 0).read_bytes() != first


def test_a_damaged_part_of_a_run_that_was_stopped_is_made_again(
    label, bert_folder, long_text, broken_off, tmp_path, caplog
):
    halve_part(broken_off)

    label(bert_folder, long_text, broken_off)
    whole = label(bert_folder, long_text, tmp_path / "whole")

    assert "part-0000.arrow: damaged; made again" in caplog.text
    assert part_path(broken_off, 0).read_bytes() == part_path(whole.folder, 0).read_bytes()


@pytest.mark.parametrize("n_sentences", [1, BLOCK, 6_000, 131_072, 131_073, 10_000_000])
def test_a_text_of_any_length_has_not_too_many_parts(n_sentences):
    length = part_length(n_sentences)

    assert length % BLOCK == 0
    assert n_sentences / length <= 128
    assert length == BLOCK or n_sentences / (length - BLOCK) > 128


def test_a_full_disk_is_told_by_the_part_and_leaves_nothing_half_written(
    label, bert_folder, text, tmp_path, monkeypatch
):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ArrowWriter, "finalize", refuse)
        with pytest.raises(RunError, match=r"part-0000.arrow: cannot be written: No space left on device"):
            label(bert_folder, text, tmp_path / "labels")
    left = {path.name for path in (tmp_path / "labels").iterdir()}

    assert left == {".begun.json"}
    assert len(label(bert_folder, text, tmp_path / "labels")) == len(WORDS)


def test_a_word_that_the_teacher_could_not_see_has_zeros(stored):
    number = WORDS.index(["Kiel", UNSEEN, "Köln"])

    sums = stored.probs(number).sum(axis=1)
    lengths = np.linalg.norm(stored.projections(number), axis=1)

    np.testing.assert_allclose(sums, [1, 0, 1], atol=0.01)
    np.testing.assert_allclose(lengths, [1, 0, 1], atol=0.01)


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_stored_windows_are_those_of_the_encoder(stored, tmp_path, name):
    encoder = WordEncoder(TOKENIZERS[name](), max_length=24)

    store_windows(tmp_path / "windows.arrow", stored, encoder)
    windows = StoredWindows(tmp_path / "windows.arrow")

    expected = list(encoder.encode(WORDS))
    assert len(windows) == len(expected) > len(WORDS)  # some sentences are cut
    assert windows.lengths.tolist() == [len(window.piece_ids) for window in expected]
    for found, window in zip(windows, expected, strict=True):
        assert found.sentence == window.sentence
        for column in ("piece_ids", "word_positions", "word_numbers"):
            assert np.array_equal(getattr(found, column), getattr(window, column))


# The student's tokenizer sees a word in what is nothing to the teacher's, and gives other pieces to all others.
@pytest.fixture
def student():
    return WordEncoder(unigram_tokenizer(), max_length=64)


@pytest.fixture
def windows(student):
    return list(student.encode(WORDS))


@pytest.fixture
def pairs(stored, student, windows):
    """Makes the batch of sentence pairs of these windows."""
    text = SoftText(windows, np.arange(len(windows)), stored, student.pad_id)
    recipe = load_recipe("distill", ["target=de", "variant=calibrated", "pairs.per_sentence=8", "pairs.balance=0"])
    objective = student_objective(recipe, text)
    return lambda *numbers: objective.batch(Plan(np.asarray(numbers), (0,)))


def words_of_batch(numbers, windows, soft_labels):
    """What the words of a batch are, in its order: (sentence, word number)."""
    rows = [windows[number] for number in numbers]
    words = [(row.sentence, int(word)) for row in rows for word in row.word_numbers]
    return [(sentence, word) for sentence, word in words if soft_labels.probs(sentence)[word].any()]


def test_a_student_with_another_tokenizer_gets_the_soft_labels_of_its_words(stored, student, windows):
    (plan,) = plan_epoch(np.full(len(windows), 9), batch_size=len(windows), seed=0, epoch=0)
    text = SoftText(windows, np.arange(len(windows)), stored, student.pad_id)

    batch = text.batch(text.windows(plan))

    expected = words_of_batch(plan.windows, windows, stored)
    assert len(expected) == len(batch.probs) == len(batch.trust)
    first_pieces = batch.tokens.input_ids.flatten()[batch.tokens.words].tolist()
    for (sentence, number), piece, probs in zip(expected, first_pieces, batch.probs, strict=True):
        assert piece == student.tokenizer(WORDS[sentence][number], add_special_tokens=False)["input_ids"][0]
        assert probs.tolist() == stored.probs(sentence)[number].tolist()


def test_the_temperature_of_a_compact_student_falls_from_epoch_to_epoch(stored, student, windows):
    text = SoftText(windows, np.arange(len(windows)), stored, student.pad_id)
    recipe = load_recipe("distill", ["target=de", "student=bilstm", "compact.first_temperature=4"])
    still = load_recipe("distill", ["target=de", "student=bilstm", "loss.temperature=2"])

    def temperatures(recipe):
        objective = CompactWords(text, WordLoss(recipe.loss, "one"), 1.0, recipe.compact, n_epochs=4)
        batches = [objective.batch(Plan(np.arange(2), (0, epoch, 0))) for epoch in range(4)]
        return [batch.temperature.item() for batch in batches]

    assert temperatures(recipe) == [4, 3, 2, 1]
    assert temperatures(still) == [2, 2, 2, 2]


def test_words_that_the_teacher_could_not_see_are_left_out(stored, student, windows):
    places = [number for number, window in enumerate(windows) if UNSEEN in WORDS[window.sentence]]
    text = SoftText(windows, np.arange(len(windows)), stored, student.pad_id)

    batch = text.batch(text.windows(Plan(np.asarray(places), (0,))))

    assert [len(window.word_numbers) for window in (windows[place] for place in places)] == [1, 3]
    assert (batch.tokens.words // batch.tokens.input_ids.shape[1]).tolist() == [1, 1]
    assert batch.probs.any(dim=1).tolist() == [True, True]


def test_word_pairs_join_known_words_of_the_two_towers(stored, windows, pairs):
    batch = pairs(0, 5, 1, 2, 6)

    n_first = len(words_of_batch([0, 5, 1], windows, stored))
    assert batch.in_first_tower.tolist() == [place < n_first for place in range(len(batch.probs))]
    assert batch.word_pairs.shape == (2, 24)
    assert (batch.word_pairs[0] < n_first).all()
    assert ((batch.word_pairs[1] >= n_first) & (batch.word_pairs[1] < len(batch.probs))).all()


def test_a_pair_carries_the_teachers_similarity_of_its_two_words(stored, windows, pairs):
    batch = pairs(0, 1, 2, 3)

    words = words_of_batch([0, 1, 2, 3], windows, stored)
    for first, second, similarity in zip(*batch.word_pairs.tolist(), batch.similarity.tolist(), strict=True):
        one, other = (stored.projections(words[place][0])[words[place][1]].astype(float) for place in (first, second))
        logit = stored.card.scale * (one @ other) + stored.card.offset
        assert abs(similarity - 1 / (1 + np.exp(-logit))) < 1e-4


def test_half_of_the_pairs_have_one_likeliest_tag(pairs):
    batch = pairs(0, 1, 2, 3)

    first, second = batch.probs[batch.word_pairs].argmax(dim=-1)
    assert (first == second).sum() == 8 == len(first) / 2


def test_a_batch_of_one_window_has_no_pairs(pairs):
    batch = pairs(0)

    assert batch.word_pairs.shape == (2, 0)
    assert batch.similarity.shape == (0,)


def test_a_teacher_without_a_similarity_head_gives_probabilities_alone(label, text, tmp_path):
    tokenizer = word_piece_tokenizer()
    save_model(tmp_path / "teacher", tiny_model(tokenizer), tokenizer, ModelSettings())

    soft_labels = label(tmp_path / "teacher", text, tmp_path / "labels")

    assert soft_labels.card.projection_size == 0
    assert soft_labels.probs(0).shape == (5, 7)
