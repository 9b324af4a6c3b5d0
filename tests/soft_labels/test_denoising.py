"""What holds for every step of denoising, and for any row of steps."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import Accelerator
from runs import DISTILL, TEACHER, TINY, run_on_two, run_script, sentences, write_conll, write_text
from test_soft_labels import WORDS

from xlner.config.load import load_recipe
from xlner.config.schema import CorpusRecipe
from xlner.errors import RecipeError
from xlner.jobs.inputs import steps_of
from xlner.jobs.student import held_out_of, student_windows, training_text
from xlner.jobs.transformer_student import new_student
from xlner.soft_labels.label import DenoisingContext, soft_labels_of
from xlner.soft_labels.steps import DENOISERS, denoised_soft_labels, denoising_steps
from xlner.soft_labels.store import SoftLabels, derived_soft_labels, soft_row
from xlner.tags import LabelSet

STEPS = sorted(DENOISERS)
FP16_STEP = 2**-10


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The unlabelled target `xx`, and text of the teacher's language, `de`."""
    folder = tmp_path_factory.mktemp("denoising")
    for language in ("xx", "de"):
        (folder / language).mkdir()
    (folder / "xx" / "train.conll").write_text("\n\n".join("\n".join(words) for words in WORDS) + "\n")
    write_conll(folder / "de" / "train.conll", sentences(20, seed=1))
    return folder


@pytest.fixture(scope="module")
def taught(accelerator, bert_folder, data):
    return soft_labels_of(
        bert_folder,
        Path(data / "xx" / "train.conll"),
        corpus=CorpusRecipe(),
        store=data / "labels",
        root=data,
        accelerator=accelerator,
        autocast_dtype=None,
    )


@pytest.fixture(scope="module")
def of_any_kind(accelerator, taught):
    """Soft labels of the same words by chance, with trust between 0 and 1; unseen words stay unseen."""

    def make(seed):
        generator = np.random.default_rng(seed)

        def rows():
            for number in range(len(taught)):
                words, probs = taught.words(number), taught.probs(number)
                drawn = generator.dirichlet(np.full(probs.shape[1], 0.3), len(words)) * probs.any(axis=1)[:, None]
                yield soft_row(words, drawn, taught.projections(number), generator.random(len(words)))

        return derived_soft_labels(taught, "chance", seed, rows, accelerator)

    return make


@pytest.fixture(scope="module")
def denoise(accelerator, bert_folder, data, taught):
    """The soft labels after the steps of a recipe."""

    def make(soft_labels, steps, *settings):
        arguments = ["target=xx", f"data={data}", f"teacher={bert_folder}", f"denoising={steps}", *settings]
        recipe = load_recipe("distill", arguments)
        return denoised_soft_labels(soft_labels, steps_of(recipe), DenoisingContext(accelerator, 0.9))

    return make


def column(soft_labels, name):
    return [np.asarray(getattr(soft_labels, name)(number)).tolist() for number in range(len(soft_labels))]


def check_invariants(before, after):
    """What a step may not touch, and what must hold of all that it may."""
    assert after.card.tags == before.card.tags
    assert len(after) == len(before)
    for name in ("words", "projections"):
        assert column(after, name) == column(before, name)
    for number in range(len(before)):
        probs, trust = after.probs(number).astype(np.float64), after.weights(number)
        seen = before.probs(number).any(axis=1)
        assert not probs[~seen].any()
        assert probs.min(initial=0.0) >= 0.0
        np.testing.assert_allclose(probs[seen].sum(axis=1), 1.0, atol=probs.shape[1] * FP16_STEP)
        assert trust.min(initial=0.0) >= 0.0
        assert trust.max(initial=1.0) <= 1.0
        assert (trust <= before.weights(number)).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_words_and_makes_proper_soft_labels(denoise, of_any_kind, step, seed):
    before = of_any_kind(seed)

    after = denoise(before, step)

    check_invariants(before, after)


@pytest.mark.parametrize("steps", [",".join(pair) for pair in itertools.product(STEPS, repeat=2)])
def test_steps_follow_each_other_in_any_order(denoise, taught, steps):
    check_invariants(taught, denoise(taught, steps))


def test_a_step_can_be_taken_twice(denoise, of_any_kind):
    before = of_any_kind(9)

    check_invariants(before, denoise(before, "pooling, pooling"))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_gives_the_same_result_each_time(denoise, of_any_kind, step):
    before = of_any_kind(1)
    folder = denoise(before, step).folder
    first = (folder / "part-0000.arrow").read_bytes()
    for path in folder.iterdir():
        path.unlink()

    assert denoise(before, step).folder == folder
    assert (folder / "part-0000.arrow").read_bytes() == first


@pytest.mark.parametrize(
    ("step", "setting"),
    [
        ("pooling", "pooling.word=0.1"),
    ],
)
def test_another_setting_gives_another_result(denoise, of_any_kind, step, setting):
    one, other = denoise(of_any_kind(2), step), denoise(of_any_kind(2), step, setting)

    assert one.folder != other.folder
    assert [column(one, name) for name in ("probs", "weights")] != [
        column(other, name) for name in ("probs", "weights")
    ]


@pytest.mark.parametrize("steps", ["none", ""])
def test_none_changes_nothing(denoise, taught, steps):
    assert denoise(taught, steps) is taught


def test_an_unknown_step_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"unknown step of denoising 'poling'; known: pooling; did you mean"):
        denoising_steps("pooling,poling")


def test_steps_that_leave_no_word_to_learn_from_are_told(accelerator, bert_folder, taught):
    def rows():
        for number in range(len(taught)):
            words, probs = taught.words(number), taught.probs(number)
            yield soft_row(words, probs, taught.projections(number), np.zeros(len(words)))

    nothing = derived_soft_labels(taught, "nothing", None, rows, accelerator)
    recipe = load_recipe("distill", ["target=xx", f"teacher={bert_folder}", "denoising=pooling"])
    _, encoder, _ = new_student(recipe, LabelSet(taught.card.tags), 0.0, taught, accelerator)
    windows = student_windows(taught, encoder, accelerator)
    student = SimpleNamespace(soft_labels=nothing, encoder=encoder)

    with pytest.raises(RecipeError, match="denoising=pooling leaves no word to learn from"):
        training_text(student, windows, held_out_of(len(taught), recipe), recipe.denoising)


@pytest.fixture(scope="module")
def long_text(still_encoder, small_data, tmp_path_factory):
    """A teacher, and a text of more blocks than one, so that two processes have to share it."""
    folder = tmp_path_factory.mktemp("long")
    assert run_script(TEACHER, f"encoder={still_encoder}", f"data={small_data}", *TINY, cwd=folder).status == 0
    write_text(folder / "data" / "de" / "train.txt", sentences(1100, seed=4))
    write_conll(folder / "data" / "en" / "train.conll", sentences(60, seed=1))
    return folder


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same_soft_labels(long_text):
    steps = ",".join(STEPS)
    arguments = [
        f"data={long_text / 'data'}",
        f"teacher={long_text / 'runs' / 'teacher-en' / 'model'}",
        "target=de",
        f"denoising={steps}",
        *(argument for argument in TINY if "epochs" not in argument),
        "optimization.epochs=1",
    ]
    found = []
    for name, run in (("one", run_script), ("two", run_on_two)):
        (long_text / name).mkdir()
        finished = run(DISTILL, *arguments, f"soft_labels={long_text / name / 'labels'}", cwd=long_text / name)
        assert {one.status for one in (finished if isinstance(finished, list) else [finished])} == {0}
        found.append(sorted((long_text / name / "labels").rglob("soft_labels.json")))

    one, two = found
    assert len(one) == len(two) == len(STEPS) + 1
    for mine, theirs in zip(one, two, strict=True):
        assert mine.parent.name == theirs.parent.name
        for name in ("words", "probs", "weights"):
            assert column(SoftLabels(mine.parent), name) == column(SoftLabels(theirs.parent), name)
