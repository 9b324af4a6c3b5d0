"""Hidden states of the words of a text: stored once, beside the soft labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_soft_labels import UNSEEN, WORDS

from xlner.config.schema import CorpusRecipe
from xlner.models.folder import load_joint_model
from xlner.network_outputs import word_encoder
from xlner.soft_labels.label import hidden_states, soft_labels_of


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def taught(accelerator, bert_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    (folder / "train.conll").write_text("\n\n".join("\n".join(words) for words in WORDS) + "\n", encoding="utf-8")
    return soft_labels_of(
        bert_folder,
        Path(folder / "train.conll"),
        corpus=CorpusRecipe(),
        store=folder / "labels",
        root=folder,
        accelerator=accelerator,
        autocast_dtype=None,
    )


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_they_are_the_mean_of_the_last_layers_at_first_pieces(accelerator, bert_folder, taught, n_layers):
    found = hidden_states(bert_folder, taught, n_layers, accelerator=accelerator, autocast_dtype=None)

    recognizer = load_joint_model(bert_folder).recognizer.eval()
    (window,) = word_encoder(bert_folder, recognizer).encode([WORDS[0]])
    with torch.inference_mode():
        layers = recognizer(torch.from_numpy(window.piece_ids)[None].long(), output_hidden_states=True).hidden_states
    expected = torch.stack(layers[-n_layers:]).mean(dim=0)[0, window.word_positions]
    np.testing.assert_allclose(found.of(0), expected.numpy(), atol=2e-3)
    assert found.of(0).shape == (len(WORDS[0]), found.width)


def test_a_word_without_a_piece_has_zeros(accelerator, bert_folder, taught):
    found = hidden_states(bert_folder, taught, 1, accelerator=accelerator, autocast_dtype=None)

    seen = [row.any(axis=1).tolist() for row in (found.of(number) for number in range(len(WORDS)))]
    assert seen == [[word != UNSEEN for word in words] for words in WORDS]


def test_all_words_of_a_text_stand_in_one_array(accelerator, bert_folder, taught):
    found = hidden_states(bert_folder, taught, 1, accelerator=accelerator, autocast_dtype=None)

    np.testing.assert_array_equal(found.all(), np.concatenate([found.of(number) for number in range(len(found))]))


def test_they_are_made_once(accelerator, bert_folder, taught):
    times = []
    for _ in range(2):
        hidden_states(bert_folder, taught, 1, accelerator=accelerator, autocast_dtype=None)
        times.append({path.name: path.stat().st_mtime_ns for path in taught.folder.glob("hidden-*.arrow")})

    assert times[0] == times[1] != {}
