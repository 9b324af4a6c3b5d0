"""Recipes: text from YAML files and `key=value`, given its type by the schema and nothing else."""

from dataclasses import fields, is_dataclass, replace
from itertools import takewhile

import pytest
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlner.config.load import KINDS, VARIANTS, choose, explain, load_recipe, recipe_text
from xlner.config.schema import CheckpointRecipe, DistillRecipe, OptimizationRecipe, TeacherRecipe, WeightsRecipe
from xlner.errors import RecipeError

# What YAML, OmegaConf or Python would take for something else than text.
TREACHEROUS = [
    "no",
    "NO",
    "on",
    "off",
    "yes",
    "true",
    "null",
    "None",
    "~",
    "007",
    "1e3",
    "0x1F",
    "1_000",
    "12:30",
    ".5",
]
NUMBERS = [
    (section, spec.name, spec.metadata[bound], beyond)
    for section in ("pairs", "similarity", "optimization", "loss", "corpus", "checkpoint", "hardware")
    for schema in (TeacherRecipe, DistillRecipe)
    for outer in fields(schema)
    if outer.name == section
    for spec in fields(outer.type)
    for bound, beyond in (("low", -1), ("high", 1))
    if abs(spec.metadata[bound]) != float("inf")
]


@pytest.fixture
def recipes(tmp_path):
    """A folder with one recipe of each kind."""
    for kind, name, text in (
        ("teacher", "en", "language: en\nseed: 3\n"),
        ("distill", "no", "target: no\nrun: 007\noptimization:\n  epochs: 4\n"),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def written(tmp_path):
    """Writes a recipe file of any content and gives the argument that names it."""

    def write(content, selector="target"):
        path = tmp_path / "written.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"{selector}={path}"

    return write


def keys_of(schema, prefix=""):
    """Every key of a schema with its dots."""
    for spec in fields(schema):
        if is_dataclass(spec.type):
            yield from keys_of(spec.type, f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}"


@pytest.mark.parametrize("text", TREACHEROUS)
def test_text_on_the_command_line_stays_as_it_was_typed(recipes, text):
    recipe = load_recipe("distill", ["target=de", f"run={text}", f"data={text}"], recipes)

    assert (recipe.run, recipe.data) == (text, text)


@pytest.mark.parametrize("text", TREACHEROUS)
def test_text_in_a_file_stays_as_it_was_written(written, text):
    recipe = load_recipe("distill", [written(f"target: de\nrun: {text}\n")])

    assert recipe.run == text


def test_norwegian_is_a_language_on_the_command_line(tmp_path):
    recipe = load_recipe("distill", ["target=no"], tmp_path)

    assert recipe.target == "no"


def test_norwegian_is_a_language_in_a_file(recipes):
    recipe = load_recipe("distill", ["target=no"], recipes)

    assert (recipe.target, recipe.run, recipe.optimization.epochs) == ("no", "007", 4)


def test_a_target_without_a_file_takes_the_defaults(recipes):
    recipe = load_recipe("distill", ["target=fi"], recipes)

    assert recipe == DistillRecipe(target="fi")


def test_a_teacher_without_any_argument_takes_the_defaults(recipes):
    recipe = load_recipe("teacher", [], recipes)

    assert recipe == TeacherRecipe()


@pytest.mark.parametrize(
    ("argument", "suggestion"),
    [
        ("optimization.epoch=3", "'epochs'"),
        ("optimisation.epochs=3", "'optimization'"),
        ("sed=3", "'seed'"),
    ],
)
def test_a_misspelt_key_gets_a_suggestion(recipes, argument, suggestion):
    with pytest.raises(RecipeError, match=rf"Did you mean: {suggestion}\?"):
        load_recipe("distill", ["target=de", argument], recipes)


def test_a_misspelt_key_in_a_file_is_named_with_its_file(written):
    argument = written("target: de\noptimization:\n  epoch: 3\n")

    with pytest.raises(RecipeError, match=r"written\.yaml: Key 'epoch' .* Did you mean: 'epochs'.*optimization\.epoch"):
        load_recipe("distill", [argument])


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["target=de", "variant=calibrted"], "'calibrated'"),
        (["target=NO"], "recipes in that folder: no"),
        (["target=noo.x"], r"recipes in that folder: no"),
    ],
)
def test_a_misspelt_choice_gets_the_known_ones(recipes, arguments, suggestion):
    with pytest.raises(RecipeError, match=suggestion):
        load_recipe("distill", arguments, recipes)


def test_an_unknown_recipe_name_lists_the_known_ones(recipes):
    with pytest.raises(RecipeError, match=r"teacher/eng\.yaml; recipes in that folder: en; did you mean 'en'\?"):
        load_recipe("teacher", ["recipe=eng"], recipes)


def test_a_language_without_a_recipe_gets_the_one_that_takes_any(recipes):
    with pytest.raises(RecipeError, match=r"of another language give it to one of these: recipe=en language=nl$"):
        load_recipe("teacher", ["recipe=nl"], recipes)


def test_a_choice_outside_its_table_is_refused_with_the_table():
    table = {"soft_cross_entropy": 1, "squared_error": 2}

    with pytest.raises(
        RecipeError, match=r"unknown loss 'square_error'; known: soft.*; did you mean 'squared_error'\?"
    ):
        choose(table, "square_error", "loss")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("selection=best", "selection is 'best'; it must be one of auto, last, agreement"),
        ("optimization.decay=exponential", "must be one of linear, cosine, constant"),
        ("optimization.freeze=embeddings+all", "must be none, embeddings or embeddings.N"),
        ("hardware.precision=int8", "must be one of auto, fp32, bf16, fp16"),
        ("corpus.scheme=lax", "must be one of auto, strict, plain"),
        ("checkpoint.resume=yes", "must be auto, never, or the path of a checkpoint"),
    ],
)
def test_a_text_outside_its_choices_is_refused(recipes, argument, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("distill", ["target=de", argument], recipes)


@pytest.mark.parametrize(("section", "name", "bound", "beyond"), NUMBERS)
def test_a_number_beyond_its_bound_is_refused_and_the_bound_itself_is_not(section, name, bound, beyond):
    schema = next(spec.type for spec in (*fields(TeacherRecipe), *fields(DistillRecipe)) if spec.name == section)

    inside = schema(**{name: bound})

    assert inside.__dict__[name] == bound
    with pytest.raises(RecipeError, match=rf"{section}\.{name} is .*; it must be"):
        schema(**{name: bound + beyond})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_finite_number_is_refused(recipes, value):
    with pytest.raises(RecipeError, match=r"loss\.similarity_weight is"):
        load_recipe("distill", ["target=de", f"loss.similarity_weight={value}"], recipes)


@pytest.mark.parametrize("argument", ["seed=1.5", "seed=one", "seed=", "hardware.cpu=perhaps", "seed.x=1"])
def test_a_value_of_another_type_is_refused_with_its_key(recipes, argument):
    with pytest.raises(RecipeError, match=r"command line: .*\(key: (seed|hardware\.cpu)\)"):
        load_recipe("distill", ["target=de", argument], recipes)


def test_a_distillation_without_a_target_is_refused(recipes):
    with pytest.raises(RecipeError, match="target is empty; which language"):
        load_recipe("distill", ["run=first"], recipes)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${seed}", "a${b}c", "???"])
def test_variables_and_placeholders_are_refused_on_the_command_line(recipes, text):
    with pytest.raises(RecipeError, match="command line: run"):
        load_recipe("distill", ["target=de", f"run={text}"], recipes)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${seed}", "???"])
def test_variables_and_placeholders_are_refused_in_a_file(written, text):
    with pytest.raises(RecipeError, match=r"written\.yaml: freeze"):
        load_recipe("distill", [written(f"target: de\noptimization:\n  freeze: '{text}'\n")])


def test_a_path_that_is_not_utf8_is_refused(recipes):
    with pytest.raises(RecipeError, match=r"command line: data holds 'K\\udcf6ln', which is not UTF-8"):
        load_recipe("distill", ["target=de", "data=K\udcf6ln"], recipes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("target: &here no\nrun: *here\n", "anchor or alias"),
        ("target: no\ntarget: de\n", "key 'target' is given twice"),
        ("target: no\noptimization:\n  epochs: 1\n  epochs: 2\n", "key 'epochs' is given twice"),
        ("- target\n", "expected `key: value` lines, found list"),
        ("target", "expected `key: value` lines, found str"),
        ("target: [de\n", "no valid YAML"),
        ("target: de\n---\ntarget: nl\n", "no valid YAML"),
        ("target: [de, nl]\n", r"\(key: target\)"),
        ("target: " + "[" * 500, "no valid YAML"),
        (b"target: \xff\n", "cannot be read"),
        ("target: de\noptimization:\n", "optimization is a section"),
        ("target: de\noptimization: 3\n", "optimization is a section"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_its_name(written, content, message):
    with pytest.raises(RecipeError, match=rf"written\.yaml: .*{message}"):
        load_recipe("distill", [written(content)])


def test_a_tag_of_python_in_a_file_makes_no_object(written):
    argument = written("target: de\nrun: !!python/object/apply:os.system ['true']\n")

    with pytest.raises(RecipeError, match=r"\(key: run\)"):
        load_recipe("distill", [argument])


@pytest.mark.parametrize("argument", ["seed", "", "=4", "1seed=4", "see d=4", "-", "--help=", "seed:4"])
def test_an_argument_that_is_no_key_and_value_is_refused(recipes, argument):
    with pytest.raises(RecipeError, match=r"command line|expected key=value"):
        load_recipe("distill", ["target=de", argument], recipes)


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=1", "seed=1"],
        ["target=nl"],
        ["optimization.epochs=1", "optimization.epochs=2"],
        ["optimization.epochs=1", "optimization=2"],
        ["optimization=2", "optimization.epochs=1"],
        ["target.x=1"],
    ],
)
def test_a_key_given_twice_is_refused(recipes, arguments):
    with pytest.raises(RecipeError, match="is given"):
        load_recipe("distill", ["target=de", *arguments], recipes)


def test_a_section_takes_no_value_of_its_own(recipes):
    with pytest.raises(RecipeError, match=r"optimization is a section; give its keys, as in optimization\.epochs="):
        load_recipe("distill", ["target=de", "optimization=fast"], recipes)


@pytest.mark.parametrize("name", [name for name, settings in VARIANTS.items() if settings])
def test_a_variant_sets_what_its_table_says(recipes, name):
    recipe = load_recipe("distill", ["target=de", f"variant={name}"], recipes)

    for section, values in VARIANTS[name].items():
        if isinstance(values, str):
            assert recipe.__dict__[section] == values
            continue
        found = recipe.__dict__[section].__dict__
        assert {key: type(found[key])(value) for key, value in values.items()} == {key: found[key] for key in values}


def test_the_file_overrides_the_variant_and_the_command_line_the_file(written):
    argument = written("target: de\nvariant: tsl\nweights:\n  alpha: squared_confidence\n  beta: squared_margin\n")

    recipe = load_recipe("distill", [argument, "weights.beta=one"])

    assert recipe.weights == WeightsRecipe(alpha="squared_confidence", beta="one", gamma="one")
    assert (recipe.variant, recipe.loss.recognizer) == ("tsl", "mean_squared_error")


def test_a_further_recipe_adds_its_settings_and_leaves_the_target(written):
    further = written("target: en\noptimization:\n  epochs: 7\n").replace("target=", "recipe=")

    recipe = load_recipe("distill", ["target=de", further])

    assert (recipe.target, recipe.optimization.epochs) == ("de", 7)
    assert load_recipe("distill", ["target=de", "recipe=few-labels"]).target == "de"


def test_the_variant_of_the_command_line_overrides_that_of_the_file(written):
    argument = written("target: de\nvariant: tsl\n")

    recipe = load_recipe("distill", [argument, "variant=pooled"])

    assert recipe == DistillRecipe(target="de")


def test_the_command_line_overrides_the_file(recipes):
    recipe = load_recipe("distill", ["target=no", "optimization.epochs=9", "seed=2"], recipes)

    expected = DistillRecipe(target="no", run="007", seed=2, optimization=OptimizationRecipe(epochs=9))
    assert recipe == expected


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"tag"}))  # which is no run, and is not written down
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    run=st.text().filter(lambda text: "${" not in text and text != "???"),
    data=st.sampled_from([*TREACHEROUS, "", " ", "a: b", "- a", "&a", "*a", "!!str", "#", "'", '"', "\\", "%", "a\nb"]),
    target=st.text(min_size=1).filter(lambda text: "${" not in text and text != "???"),
    steps=st.integers(0, 10**9),
    rate=st.floats(0, 1),
)
def test_a_written_recipe_reads_back_as_it_was(tmp_path, kind, run, data, target, steps, rate):
    schema, selector = KINDS[kind]
    own = {"language": target} if kind == "teacher" else {"target": target}
    optimization, checkpoint = OptimizationRecipe(learning_rate=rate), CheckpointRecipe(steps=steps)
    recipe = replace(schema(**own), run=run, data=data, optimization=optimization, checkpoint=checkpoint)

    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    read_back = load_recipe(kind, [f"{selector}={tmp_path / 'recipe.yaml'}"])

    assert read_back == recipe


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_help_has_a_line_for_every_key(kind):
    schema, _ = KINDS[kind]

    lines = explain(kind).splitlines()

    explained = [line.split()[0] for line in lines if line.startswith("  ")]
    assert explained == list(keys_of(schema))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_help_names_every_variant(name):
    assert name in explain("distill").splitlines()[-1]


# Those of the ablation are given by their path; they have a test of their own.
RECIPES = sorted(path for kind in KINDS for path in (REPOSITORY / "recipes" / kind).glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads_and_says_how_to_launch_it(path):
    kind = path.parent.name
    selector = KINDS[kind][1]

    recipe = load_recipe(kind, [f"{selector}={path.stem}"], REPOSITORY / "recipes")
    header = list(takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))

    assert isinstance(recipe, KINDS[kind][0])
    assert f"{selector}={path.stem}" in " ".join(header)


@pytest.mark.parametrize(
    ("argument", "way"),
    [
        ("loss.rdrop_weight=1", "went after version 0.2.0"),
        ("rounds.count=2", "went after version 0.2.0"),
        ("optimization.ema=0.9", "went after version 0.2.0"),
        ("tensorboard=true", "give trackers=tensorboard"),
        ("optimization.epoch=3", "--help lists the keys"),
    ],
)
def test_a_key_that_earlier_versions_had_says_what_to_do_now(argument, way):
    with pytest.raises(RecipeError, match=way):
        load_recipe("distill", ["target=de", argument])
