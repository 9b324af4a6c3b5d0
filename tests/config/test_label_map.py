import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlner.config.load import load_recipe, recipe_text
from xlner.errors import LabelError, RecipeError, XlnerError
from xlner.tags import LabelMap, spans_of, to_iob2

TYPES = ["PER", "LOC", "ORG", "MISC"]
TAG_SEQUENCES = st.lists(st.sampled_from(["O", *(f"{prefix}-{name}" for prefix in "BI" for name in TYPES)]))
MAPS = st.builds(
    LabelMap,
    st.dictionaries(st.sampled_from(TYPES), st.sampled_from(["", "PER", "ENT", "LOC"])),
    st.sampled_from([None, "", "ENT"]),
)


@pytest.mark.parametrize(
    ("text", "tags", "expected"),
    [
        ("", "B-PER I-PER O", "B-PER I-PER O"),
        ("MISC=", "B-MISC I-MISC B-PER", "O O B-PER"),
        ("PERSON=PER, GPE = LOC", "B-PERSON I-PERSON B-GPE B-ORG", "B-PER I-PER B-LOC B-ORG"),
        ("GPE=LOC,FAC=LOC", "B-GPE I-GPE B-FAC I-FAC B-LOC", "B-LOC I-LOC B-LOC I-LOC B-LOC"),
        ("PER=PER,*=", "B-PER B-GPE I-GPE O B-ORG", "B-PER O O O O"),
        ("*=ENT", "B-PER B-GPE I-GPE", "B-ENT B-ENT I-ENT"),
        ("PER=LOC,LOC=PER", "B-PER B-LOC", "B-LOC B-PER"),
        ("A-B=C-D", "B-A-B I-A-B", "B-C-D I-C-D"),
    ],
)
def test_types_are_renamed_merged_and_dropped(text, tags, expected):
    assert " ".join(LabelMap.parse(text).apply(tags.split())) == expected


def test_types_with_spaces_are_renamed_as_the_readers_take_them():
    label_map = LabelMap.parse("first name=PER, LOC = public place")

    assert label_map.apply(["B-first name", "O", "B-LOC"]) == ("B-PER", "O", "B-public place")


def test_neighbours_in_iob1_are_not_glued_when_their_types_become_one():
    assert LabelMap.parse("GPE=LOC").apply(["I-GPE", "I-LOC", "I-LOC"]) == ("B-LOC", "B-LOC", "I-LOC")


@given(label_map=MAPS, tags=TAG_SEQUENCES)
def test_every_entity_keeps_its_ends_and_gets_its_new_type_or_goes(label_map, tags):
    mapped = label_map.apply(tags)

    expected = [span._replace(label=label_map.type_of(span.label)) for span in spans_of(tags)]
    assert spans_of(mapped) == [span for span in expected if span.label]
    assert len(mapped) == len(tags)
    assert to_iob2(mapped) == mapped


@given(label_map=MAPS)
def test_a_map_is_written_as_it_is_read(label_map):
    assert LabelMap.parse(str(label_map)) == label_map


@given(label_map=MAPS, tags=TAG_SEQUENCES)
def test_predictions_under_the_new_names_stay_as_they_are(label_map, tags):
    mapped = label_map.apply(tags)

    of_new_types = {span.label for span in spans_of(mapped)} <= {*label_map.names.values(), label_map.others}
    assert label_map.for_predictions().apply(mapped) == mapped or not of_new_types


def test_predictions_of_a_dropped_type_are_dropped_too():
    label_map = LabelMap.parse("PERSON=PER,MISC=,*=").for_predictions()

    assert label_map.apply(["B-PER", "B-PERSON", "B-MISC", "B-LOC"]) == ("B-PER", "B-PER", "O", "O")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MISC", "found 'MISC' in the label map 'MISC'; expected OLD=NEW, or OLD= to drop"),
        ("=PER", "found '=PER'"),
        ("PER=PERSON=X", "found 'PER=PERSON=X'"),
        ("PER=PERSON,", "found ''"),
        ("PER=PERSON GPE=LOC", "found 'PER=PERSON GPE=LOC'"),
        ("PER=*", r"found 'PER=\*'"),
        ("B-PERSON=PER", "found 'B-PERSON' in the label map; expected a type without prefix: PERSON"),
        ("PERSON=I-PER", "found 'I-PER' in the label map; expected a type without prefix: PER"),
        ("PER=,PER=X", "names PER twice, with nothing and X"),
    ],
)
@pytest.mark.parametrize("kind", ["teacher", "distill"])
def test_a_map_of_another_form_is_refused_before_anything_is_loaded(text, message, kind, tmp_path):
    target = ["target=de"] if kind == "distill" else []

    with pytest.raises(LabelError, match=message):
        load_recipe(kind, [*target, f"labels.map={text}"], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person=PER", "names person, a type not found in x; types there: LOC, PERSON; did you mean PERSON"),
        ("LOCATON=LOC", "names LOCATON.*did you mean LOC"),
        ("Loc=LOC", "names Loc.*did you mean LOC"),
        ("GENE=", "names GENE, a type not found in x; types there: LOC, PERSON$"),
    ],
)
def test_a_type_that_is_nowhere_is_refused_with_the_nearest(text, message):
    with pytest.raises(LabelError, match=message):
        LabelMap.parse(text).check(["PERSON", "LOC"], "x")


@pytest.mark.parametrize("text", ["GPE=LOC", "MISC=,ORGANIZATION=ORG,LOCATION=LOC"])
def test_a_common_type_that_a_corpus_lacks_is_no_slip_of_the_pen(text):
    LabelMap.parse(text).check(["PERSON", "LOC"], "x")

    assert LabelMap.parse(text).apply(["B-PERSON", "B-LOC"]) == ("B-PERSON", "B-LOC")


@pytest.mark.parametrize("text", ["", "MISC=,PERSON=PER,*=", "*=ENT"])
def test_the_map_stays_in_the_recipe_that_is_saved(text, tmp_path):
    recipe = load_recipe("teacher", [f"labels.map={text}"])
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")

    again = load_recipe("teacher", [f"recipe={tmp_path / 'recipe.yaml'}"])

    assert (again, again.labels.map) == (recipe, text)


def test_an_unquoted_star_in_a_recipe_file_is_refused_with_its_file(tmp_path):
    (tmp_path / "own.yaml").write_text("labels:\n  map: *=\n", encoding="utf-8")

    with pytest.raises(XlnerError, match=r"own\.yaml") as refusal:
        load_recipe("teacher", [f"recipe={tmp_path / 'own.yaml'}"])
    assert refusal.type is RecipeError
