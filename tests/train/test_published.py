"""The variants `authors` and `blog` as published, point by point; their losses stand in test_distillation_objective."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import tiny_model, word_piece_tokenizer
from runs import DISTILL, REPOSITORY, TEACHER, report_of, run_well, weights_of
from safetensors.torch import load_file
from test_distillation_objective import TEXT

from xlner.config.load import PUBLISHED, load_recipe, recipe_text
from xlner.config.schema import CheckpointRecipe, HardwareRecipe
from xlner.errors import RecipeError
from xlner.jobs.distill import distill
from xlner.jobs.transformer_student import student_objective
from xlner.models.folder import read_settings, save_model
from xlner.models.inference import TokenBatch
from xlner.models.joint import JointModel, TwoHeadStudent
from xlner.models.settings import ModelSettings
from xlner.models.token_classifier import second_network
from xlner.train.batches import plan_epoch
from xlner.train.loop import Validation, fit, step_batches
from xlner.train.objectives import Objective
from xlner.train.run import RunFolder

RECIPES = REPOSITORY / "recipes"
HERE = ("hardware.cpu=true", "hardware.precision=fp32", "hardware.threads=1", "pairs.per_sentence=8")
BODY, LAYER = "recognizer.bert.encoder.layer.1.output.dense.weight", "recognizer.classifier.weight"


def recipe_of(kind, variant, *arguments):
    named = [f"recipe={variant}"] if kind == "teacher" else ["target=de", f"variant={variant}"]
    return load_recipe(kind, [*named, *arguments], RECIPES)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_the_teacher_has_an_encoder_for_each_task_and_the_cosine_of_hidden_states(variant):
    recipe = recipe_of("teacher", variant)

    assert (recipe.sharing, recipe.similarity.kind, recipe.optimization.batch_size) == ("separate", "cosine", 32)
    assert (recipe.similarity_weight, recipe.optimization.freeze) == (1, "none")
    assert f"runs/{recipe.run}/model" == recipe_of("distill", variant).teacher


def test_the_students_of_the_authors_have_their_constants():
    recipe = recipe_of("distill", "authors")

    assert recipe.encoder == "pretrained"
    assert recipe.denoising == "none"
    assert (recipe.loss.recognizer, recipe.loss.similarity_weight) == ("squared_error", 0.5)
    assert (recipe.weights.alpha, recipe.weights.beta) == ("squared_confidence", "raised_margin")
    assert (recipe.weights.gamma, recipe.weights.outputs) == ("cosine_agreement", "teacher")
    assert recipe.optimization.batch_size == 32


def slow_adam(start, gradients, rate):
    """Adam of Kingma and Ba 2015, algorithm 1, number by number."""
    found = []
    for place in range(len(start)):
        value, first, second = start[place], 0.0, 0.0
        for step, gradient in enumerate(gradients, 1):
            first = 0.9 * first + 0.1 * gradient[place]
            second = 0.999 * second + 0.001 * gradient[place] ** 2
            value -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        found.append(value)
    return found


class ScaledBatch(NamedTuple):
    """A batch of nothing but the length of its gradient."""

    tokens: TokenBatch
    scale: torch.Tensor


# Of a step the gradient is far longer than any bound of clipping, and of another length than that of the step before.
SCALES = (1e3, 1e5, 1e2, 1e6, 1e4, 1e2)


class Slopes(Objective[ScaledBatch]):
    """A loss whose gradient is known: a fixed direction of the weights, times the scale of the step."""

    def __init__(self, network, n_windows):
        generator = torch.Generator().manual_seed(2)
        self.directions = {
            name: torch.randn(values.shape, generator=generator, dtype=torch.float64)
            for name, values in network.named_parameters()
        }
        self.trained = [name for name, values in network.named_parameters() if values.requires_grad]
        self.lengths, self.terms, self.n_loaded = np.full(n_windows, 5), {"linear": 1.0}, 0

    def batch(self, plan):
        self.n_loaded += 1
        mask = torch.ones(1, 1, dtype=torch.bool)
        tokens = TokenBatch(mask.long(), mask, torch.zeros(1, dtype=torch.long))
        return ScaledBatch(tokens, torch.tensor(SCALES[self.n_loaded - 1]))

    def counts(self, batch):
        return {"linear": 1}

    def loss_sums(self, network, batch):
        weights = dict(network.named_parameters())
        return {"linear": sum((weights[name] * self.directions[name]).sum() for name in self.trained) * batch.scale}


class Unscored(Validation):
    score_name = "score"

    def score(self, network):
        return 0.0, {}

    def keep(self, network):
        pass


def updated(recipe, network, folder):
    """Some numbers of the weights before and after the steps of the loop, and their gradients in each step."""
    objective = Slopes(network, 2 * recipe.optimization.batch_size)
    network = network.double()
    before = {name: values.detach().clone() for name, values in network.named_parameters()}
    keys = replace(
        recipe,
        seed=0,
        hardware=HardwareRecipe(cpu=True, precision="fp32"),
        checkpoint=CheckpointRecipe(steps=0),
    )
    fit(Accelerator(cpu=True), network, objective, Unscored(), RunFolder(folder, writes=True), keys, {})
    assert objective.n_loaded == len(SCALES)
    places = slice(0, None, 97)
    for name, values in network.named_parameters():
        if name in objective.trained:
            gradients = [(scale * objective.directions[name].flatten()[places]).tolist() for scale in SCALES]
            yield name, before[name].flatten()[places].tolist(), values.detach().flatten()[places].tolist(), gradients


@pytest.mark.parametrize(
    ("kind", "variant", "rates"),
    [
        ("teacher", "authors", (1e-5, 1e-5)),
        ("teacher", "blog", (1e-5, 1e-5)),
        ("distill", "authors", (5e-6, 5e-9)),
    ],
)
def test_each_step_is_one_of_adam_without_warm_up_decay_or_clipping(kind, variant, rates, tmp_path):
    network = tiny_model(word_piece_tokenizer(), similarity="cosine")
    if kind == "teacher":
        network = JointModel(network.recognizer, network.similarity, second_network(network.recognizer))

    rows = list(updated(recipe_of(kind, variant), network, tmp_path))

    assert len(rows) > 30
    for name, before, after, gradients in rows:
        expected = slow_adam(before, gradients, rates["classifier" in name])
        np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6 * rates["classifier" in name], err_msg=name)


def test_a_student_of_the_post_trains_its_layers_as_fast_as_its_encoder(tmp_path):
    network = TwoHeadStudent(tiny_model(word_piece_tokenizer()), is_trained=False)

    moved = {
        name: np.subtract(after, before)
        for name, before, after, _ in updated(recipe_of("distill", "blog"), network, tmp_path)
    }

    lengths = {name: np.abs(values).mean() for name, values in moved.items()}
    assert "second.weight" in lengths
    for name in ("second.weight", f"student.{LAYER}"):
        assert lengths[name] == pytest.approx(lengths[f"student.{BODY}"], rel=0.2)


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, tiny_encoder, small_data, tmp_path_factory):
    """The working directory of a published teacher and its student, by their names alone, and the variant.

    The teacher alone is trained faster than published, so that it goes far from where it started.
    """
    variant, place = request.param, tmp_path_factory.mktemp(request.param)
    brief = (f"data={small_data}", *HERE, "optimization.epochs=2")
    run_well(
        TEACHER, f"recipe={variant}", f"encoder={tiny_encoder}", *brief, "optimization.learning_rate=1e-2", cwd=place
    )
    run_well(DISTILL, "target=de", f"variant={variant}", *brief, cwd=place)
    return variant, place / "runs"


@pytest.mark.slow
def test_the_recipe_of_the_teacher_and_the_name_of_the_variant_are_all_that_is_needed(published):
    variant, runs = published

    settings = read_settings(str(runs / f"teacher-{variant}" / "model"))
    assert (settings.sharing, settings.similarity) == ("separate", "cosine")
    report = report_of(runs / "de")
    assert report["variant"] == variant
    assert report["teacher"]["folder"] == f"runs/teacher-{variant}/model"


@pytest.mark.slow
def test_a_published_student_starts_from_the_encoder_that_its_teacher_started_from(published, tiny_encoder):
    variant, runs = published
    name = BODY.removeprefix("recognizer.bert.")

    start = load_file(f"{tiny_encoder}/model.safetensors")[name]
    taught = (weights_of(runs / f"teacher-{variant}")[f"bert.{name}"] - start).abs().max()
    learnt = (weights_of(runs / "de")[f"bert.{name}"] - start).abs().max()

    # Four steps of 57 sentences in batches of 32, each no farther than a few learning rates.
    rate = recipe_of("distill", variant).optimization.learning_rate
    assert 0 < learnt < 20 * rate
    assert taught > 0.005 > 20 * rate
    kept = load_recipe("distill", [f"target={runs / 'de' / 'recipe.yaml'}"])
    assert kept.encoder == tiny_encoder


@pytest.mark.slow
def test_a_published_student_is_a_tagger_with_one_encoder_and_one_layer_of_scores(published):
    variant, runs = published

    weights = weights_of(runs / "de")

    assert {name for name in weights if not name.startswith("bert.")} == {"classifier.weight", "classifier.bias"}
    assert read_settings(str(runs / "de" / "model")).similarity == ("cosine" if variant == "authors" else "")


@pytest.mark.slow
def test_two_layers_of_scores_are_trained_again_from_where_a_run_was_stopped(published, tmp_path):
    """The second layer is no part of the result, and so has to be in the checkpoints."""
    variant, runs = published

    (newest,) = sorted((runs / "de" / "checkpoints").glob("step-*"))[-1:]
    names = set(load_file(newest / "model.safetensors"))

    assert ("second.weight" in names) == (variant == "blog")


@pytest.mark.slow
@pytest.mark.parametrize("variant", PUBLISHED)
@pytest.mark.parametrize(
    ("similarity", "sharing", "found"),
    [
        ("cosine", "joint", "one encoder for both tasks"),
        ("calibrated", "separate", "similarity.kind=calibrated"),
        ("calibrated", "joint", "one encoder for both tasks .* and similarity.kind=calibrated"),
        ("", "joint", "no similarity head"),
    ],
)
def test_a_teacher_of_another_make_is_refused_by_name(variant, similarity, sharing, found, tmp_path, small_data):
    model = tiny_model(word_piece_tokenizer(), similarity=similarity)
    folder = tmp_path / "teacher" / "model"
    size = 8 if similarity else 0
    save_model(
        folder,
        model,
        word_piece_tokenizer(),
        ModelSettings(similarity=similarity, projection_size=size, sharing=sharing),
    )
    recipe = recipe_of("distill", variant, f"teacher={folder}", f"data={small_data}", f"run={tmp_path / 'run'}")

    with pytest.raises(RecipeError, match=rf"teacher/model: variant={variant} .*{found}.*recipe={variant}"):
        distill(recipe)

    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", PUBLISHED)
def test_annotations_are_no_teacher_of_a_published_variant(variant, tiny_encoder):
    recipe = recipe_of("distill", variant, "teacher=names.jsonl", f"encoder={tiny_encoder}")

    with pytest.raises(RecipeError, match=f"variant={variant} needs a teacher .* found annotations alone"):
        distill(recipe)


@pytest.fixture
def published_folder(tmp_path):
    """A model folder of a published teacher, without the run around it."""
    model = tiny_model(word_piece_tokenizer(), similarity="cosine")
    folder = tmp_path / "copied" / "model"
    separate = JointModel(model.recognizer, model.similarity, second_network(model.recognizer))
    save_model(folder, separate, word_piece_tokenizer(), ModelSettings(similarity="cosine", sharing="separate"))
    return folder


@pytest.mark.slow
def test_a_teacher_without_its_recipe_asks_for_the_encoder(published_folder):
    recipe = recipe_of("distill", "authors", f"teacher={published_folder}")

    with pytest.raises(
        RecipeError, match=r"encoder=pretrained: no .*copied/recipe\.yaml that names the encoder .*give e"
    ):
        distill(recipe)


@pytest.mark.slow
def test_an_encoder_that_is_gone_is_told_with_the_recipe_that_names_it(published_folder, tmp_path):
    own = recipe_of("teacher", "authors", f"encoder={tmp_path / 'moved'}")
    write_recipe(published_folder.parent, own)
    recipe = recipe_of("distill", "authors", f"teacher={published_folder}")

    with pytest.raises(
        RecipeError, match=r"copied/recipe\.yaml names an encoder that is not here: .*moved: no such folder"
    ):
        distill(recipe)


def write_recipe(folder, recipe):
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")


def test_the_loss_of_the_post_takes_no_parts():
    with pytest.raises(RecipeError, match=r"weights.outputs=student .*leave out optimization.batch_pieces"):
        recipe_of("distill", "blog", "optimization.batch_pieces=64")


def test_a_revision_goes_with_an_encoder_that_is_named():
    with pytest.raises(RecipeError, match="encoder_revision=abc"):
        recipe_of("distill", "authors", "encoder_revision=abc")


@pytest.mark.parametrize(("variant", "n_parts"), [("authors", 2), ("blog", 1)])
def test_a_batch_whose_means_are_weights_is_never_computed_in_parts(variant, n_parts):
    recipe = recipe_of("distill", variant)
    n_pieces = recipe.optimization.batch_pieces // 4  # of a window, so that 8 of them are two parts
    objective = student_objective(recipe, TEXT)
    objective.lengths = np.full(8, n_pieces)
    objective.batch = lambda plan: plan
    plans = plan_epoch(objective.lengths, 8, 0, 0)

    (window,) = step_batches(objective, plans, Accelerator(cpu=True), 1, 0, recipe.optimization.batch_pieces, 0)

    assert len(window) == n_parts
