"""Recipes and command lines of any content are a valid recipe or a RecipeError; no variable is ever looked up."""

import os
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD_VALUES, damaged_bytes, fuzzing

from xlner.config.load import KINDS, explain, load_recipe, recipe_text
from xlner.config.schema import AdaptRecipe, DistillRecipe, TeacherRecipe
from xlner.errors import LabelError, RecipeError

SECRET = "what-stands-in-the-environment"
KEYS = {
    kind: sorted({line.split()[0] for line in explain(kind).splitlines() if line.startswith("  ")}) for kind in KINDS
}
VALUES = st.one_of(
    st.sampled_from([str(value) for value in ODD_VALUES]),
    st.sampled_from(
        [
            *("no", "on", "~", "1e3", "007", "0x10", "1_000", ".5", "-0", "+1", "tsl", "pooled", "none", "all", "auto"),
            *("${oc.env:FUZZ_SECRET}", "${oc.env:FUZZ_SECRET,x}", "$FUZZ_SECRET", "${target}", "${.run}", "???"),
            *("a,b", "PER=,LOC", "*=", "!!python/object:os.system", "[1, 2]", "{a: b}", "- a", "&a x", "*a"),
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
)
YAML = b"""\
target: de
run: first
seed: 1
data: data
labels:
  map: "MISC=,GPE=LOC"
optimization:
  epochs: 2
  learning_rate: 5e-5
  batch_size: 8
corpus: {columns: "0,1", scheme: auto}
"""
SNIPPETS = [
    b"${oc.env:FUZZ_SECRET}",
    b"\n  ",
    b"- ",
    b": ",
    b"? ",
    b"!!python/object/apply:os.system [x]",
    b"<<: ",
    b"%YAML",
]


def loaded_or_refused(kind, arguments, recipes):
    """Load a recipe; what comes is whole, reads back as itself, and holds nothing of the environment."""
    with patch.dict(os.environ, {"FUZZ_SECRET": SECRET}):
        try:
            recipe = load_recipe(kind, arguments, recipes=recipes)
        except (RecipeError, LabelError) as problem:
            assert SECRET not in str(problem)  # noqa: PT017 - it may also load
            return
        assert SECRET not in repr(recipe)
        if isinstance(recipe, TeacherRecipe | DistillRecipe | AdaptRecipe):
            assert SECRET not in recipe_text(recipe)


@pytest.mark.parametrize("kind", sorted(KINDS))
@fuzzing
@given(st.data())
def test_any_values_of_keys_make_a_recipe_or_are_refused(tmp_path_factory, kind, data):
    names = (
        st.sampled_from(KEYS[kind])
        | st.sampled_from(["recipe", "variant", "optimization", "a.b.c", "run.x"])
        | st.text(max_size=6)
    )
    pairs = data.draw(st.lists(st.tuples(names, VALUES), max_size=4))
    first = [] if kind == "tag" or data.draw(st.integers(0, 9)) == 0 else [f"{KINDS[kind][1]}=de"]

    loaded_or_refused(kind, [*first, *(f"{name}={value}" for name, value in pairs)], recipes="recipes")


@pytest.mark.parametrize("kind", sorted(KINDS))
@fuzzing
@given(st.data())
def test_a_recipe_file_of_any_content_makes_a_recipe_or_is_refused(tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / f"{kind}.yaml"
    content = data.draw(damaged_bytes(YAML))
    place = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:place] + data.draw(st.sampled_from([b"", *SNIPPETS])) + content[place:])

    loaded_or_refused(kind, [f"{KINDS[kind][1]}={path}"], recipes="recipes")


@fuzzing
@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_command_line_makes_a_recipe_or_is_refused(arguments):
    loaded_or_refused("distill", arguments, recipes="recipes")
