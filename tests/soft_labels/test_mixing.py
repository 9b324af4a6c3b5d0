"""Several teachers: the mixture by hand, tags of every scheme, and whole runs."""

import json
import shutil

import numpy as np
import pytest
from accelerate import Accelerator
from conftest import LABELS, SENTENCES
from hypothesis import given
from hypothesis import strategies as st
from runs import DISTILL, TINY, run_on_two, run_script

from xlner import load_tagger
from xlner.config.schema import DistillRecipe, MixingRecipe
from xlner.corpora.spans import TagReader, write_tags
from xlner.errors import LabelError, ModelError, RecipeError
from xlner.jobs.inputs import teachers_of
from xlner.predict import decide_tags, mix_probs
from xlner.soft_labels.label import teacher_fingerprint
from xlner.soft_labels.mix import mix_trust, similarity_factors, taught_soft_labels
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelMap, LabelSet, Span, TagReading, is_iob, tags_of

NO_CHANGE = LabelMap({})
FP16_STEP = 2**-10
BRIEF = (*(argument for argument in TINY if "epochs" not in argument), "optimization.epochs=1", "run=first")
FOREIGN = ("S-PERSON", "O", "B-GPE", "I-PERSON", "E-PERSON", "B-PERSON", "I-GPE")


@pytest.fixture(scope="module")
def foreign_folder(xlmr_folder, tmp_path_factory):
    """A plain model of others: another tokenizer, other names, order and scheme of tags, and a type less."""
    return with_tags(xlmr_folder, FOREIGN, tmp_path_factory.mktemp("foreign") / "model")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "data" / "de" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    return path


def with_tags(folder, tags, copy):
    """A copy of a model whose outputs have other names."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {str(number): tag for number, tag in enumerate(tags)}
    config["label2id"] = {tag: number for number, tag in enumerate(tags)}
    (copy / "config.json").write_text(json.dumps(config))
    return str(copy)


def taught(text, teacher, **keys):
    recipe = DistillRecipe(target="de", teacher=teacher, soft_labels=str(text.parent / "store"), **keys)
    return taught_soft_labels(teachers_of(recipe), text, Accelerator(cpu=True), None)


def certain(tags, known):
    """Probabilities that leave no doubt: (W, R)."""
    return np.asarray([[float(tag == name) for name in known] for tag in tags]).reshape(len(tags), len(known))


def test_a_teacher_says_nothing_of_a_type_that_it_does_not_know():
    # O, B-LOC, B-PER; the first teacher knows people alone.
    probs = np.asarray([[[0.2, 0.0, 0.8], [1.0, 0.0, 0.0]], [[0.1, 0.5, 0.4], [0.3, 0.6, 0.1]]])
    known = np.asarray([[True, False, True], [True, True, True]])
    weights = np.asarray([[3.0, 3.0], [1.0, 1.0]])

    mixed = mix_probs(probs, known, weights, 0)

    # B-LOC is the second teacher's alone; B-PER (3 * 0.8 + 0.4) / 4 = 0.7 and (0 + 0.1) / 4.
    np.testing.assert_allclose(mixed, [[0.0, 0.5 / 1.2, 0.7 / 1.2], [1 - 0.625, 0.6, 0.025]])


def test_words_that_a_teacher_has_not_seen_are_the_others():
    probs = np.asarray([[[0.0, 0.0], [0.4, 0.6], [0.0, 0.0]], [[0.3, 0.7], [0.8, 0.2], [0.0, 0.0]]])

    mixed = mix_probs(probs, np.ones((2, 2), dtype=bool), np.ones((2, 3)), 0)

    np.testing.assert_allclose(mixed, [[0.3, 0.7], [0.6, 0.4], [0.0, 0.0]])


@given(st.data())
def test_teachers_that_know_all_tags_give_their_weighted_mean(data):
    n_teachers, n_words, n_tags = (data.draw(st.integers(1, high)) for high in (4, 3, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    probs = rng.dirichlet(np.ones(n_tags + 1), (n_teachers, n_words))
    weights = rng.uniform(0.1, 3.0, n_teachers)

    mixed = mix_probs(probs, np.ones((n_teachers, n_tags + 1), dtype=bool), weights[:, None] * np.ones(n_words), 0)

    np.testing.assert_allclose(mixed, np.average(probs, axis=0, weights=weights), atol=1e-12)


def test_a_word_is_trusted_as_far_as_the_most_trusted_teacher_that_speaks_of_it():
    trust = np.asarray([[0.5, 0.5, 0.2], [0.8, 0.8, 0.9], [1.0, 1.0, 1.0]])
    seen = np.asarray([[True, True, False], [True, False, False], [True, True, True]])

    assert mix_trust(trust, np.asarray([1.0, 2.0, 0.0]), seen).tolist() == [0.8, 0.5, 0.0]


def test_joined_projections_give_the_mean_similarity_logit():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 4))  # of two words: three teachers, four numbers
    weights, curves = [1.0, 2.0, 5.0], [(8.0, -4.0), (3.0, 1.0), (-2.0, 9.0)]

    factors, offset = similarity_factors(weights, curves)

    logit = (factors[:, None] * first).ravel() @ (factors[:, None] * second).ravel() + offset
    expected = [scale * one @ other + shift for (scale, shift), one, other in zip(curves, first, second, strict=True)]
    assert factors[2] == 0  # of a scale that is not positive
    assert logit == pytest.approx((expected[0] + 2 * expected[1]) / 3)


def test_without_a_usable_similarity_head_there_is_no_similarity():
    assert similarity_factors([], [])[0].tolist() == []
    assert similarity_factors([1.0], [(-1.0, 2.0)])[0].tolist() == [0.0]
    assert similarity_factors([1.0], [(-1.0, 2.0)])[1] == 0.0


SPANS = st.lists(st.tuples(st.sampled_from(["", "LOC", "PER"]), st.integers(1, 3)), max_size=5)


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("iob2", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")),
        ("bioes", ("I-PER", "B-LOC", "S-LOC", "O", "E-PER", "S-PER", "B-PER", "I-LOC", "E-LOC")),
        ("bilou", ("O", *(f"{prefix}-{name}" for name in ("LOC", "PER") for prefix in "BILU"))),
        ("plain", ("PER", "O", "LOC")),
        ("io", ("I-LOC", "I-PER", "O")),
        ("iob1", ("I-LOC", "B-LOC", "I-PER", "O")),
    ],
)
@given(parts=SPANS)
def test_tags_of_every_scheme_mean_the_entities_that_they_mean_in_a_corpus(scheme, tags, parts):
    ends = np.cumsum([0, *(length for _, length in parts)]).tolist()
    rows = zip(parts, ends[:-1], ends[1:], strict=True)
    iob2 = tags_of([Span(name, start, end) for (name, _), start, end in rows if name], ends[-1])
    if scheme in ("plain", "io", "iob1"):
        # Neighbours of one type are one entity there.
        written = write_tags(iob2, "plain")
        iob2 = TagReader("plain").read(written, lambda _: "") or ()
        written = [tag if tag == "O" or scheme == "plain" else f"I-{tag}" for tag in written]
    else:
        written = write_tags(iob2, scheme)
    reading = TagReading.of(tags, NO_CHANGE)

    found = reading.iob2(certain(written, tags))

    assert decide_tags(found.astype(np.float32), reading.labels) == iob2
    assert reading.labels.types == ("LOC", "PER")


def test_where_tags_do_not_state_beginnings_the_word_before_tells_how_likely_one_is():
    reading = TagReading.of(("O", "I-PER"), NO_CHANGE)

    found = reading.iob2(np.asarray([[0.4, 0.6], [0.2, 0.8], [0.0, 0.0], [0.5, 0.5]]))

    # 0.8 * (1 - 0.6) begins, 0.8 * 0.6 continues; the word not seen is passed over: 0.5 * 0.2 and 0.5 * 0.8.
    np.testing.assert_allclose(found, [[0.4, 0.6, 0.0], [0.2, 0.32, 0.48], [0, 0, 0], [0.5, 0.1, 0.4]])


@given(st.integers(0, 1000))
def test_probabilities_in_iob2_stay_as_they_are(seed):
    probs = np.random.default_rng(seed).dirichlet(np.ones(len(LABELS.tags)), 6)

    found = TagReading.of(LABELS.tags, NO_CHANGE).iob2(probs)

    np.testing.assert_allclose(found, probs, atol=1e-12)


def test_types_are_renamed_merged_and_dropped():
    reading = TagReading.of(("O", "B-PERSON", "B-GPE", "B-LOC", "B-MISC"), LabelMap.parse("PERSON=PER,GPE=LOC,MISC="))

    found = reading.iob2(np.asarray([[0.1, 0.2, 0.3, 0.15, 0.25]]))

    assert reading.labels == LabelSet.of_types(["LOC", "PER"])
    np.testing.assert_allclose(found, [[0.35, 0.45, 0.0, 0.2, 0.0]])


def test_only_o_and_iob_are_tags_that_a_student_can_have():
    answers = [is_iob(tags) for tags in (LABELS.tags, ("O", "I-PER"), ("O", "S-PER"), ("O", "PER"), ("B-PER",))]

    assert answers == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weights": "uniformly"}, "expected uniform, language, or a number for each teacher"),
        ({"weights": "1,x"}, "expected uniform, language, or a number for each teacher"),
        ({"weights": "1,-1"}, "must not be below 0, and one must be above"),
        ({"weights": "0,0"}, "must not be below 0, and one must be above"),
        ({"weights": "nan,1"}, "must not be below 0, and one must be above"),
        ({"per": "sentence"}, "mixing.per=sentence needs mixing.weights=language"),
        ({"per": "word"}, "mixing.per is 'word'; it must be one of language, sentence"),
        ({"rename": "PER"}, "mixing.rename: found 'PER' in the label map"),
        ({"outside": 1.5}, "mixing.outside is 1.5; it must be between 0 and 1"),
    ],
)
def test_a_mixing_that_means_nothing_is_refused(keys, message):
    with pytest.raises(RecipeError, match=message):
        MixingRecipe(**keys)


@pytest.mark.parametrize(
    ("teacher", "keys", "message"),
    [
        ("a,", {}, "expected one teacher or several different ones"),
        ("a,a", {}, "expected one teacher or several different ones"),
        (
            "a,b",
            {"mixing": MixingRecipe(weights="1,2,3")},
            "are 3, the teachers are 2: a, b; expected a number for each",
        ),
        (
            "a,b.jsonl",
            {"mixing": MixingRecipe(weights="language")},
            "weighs models by their language; b.jsonl has none",
        ),
        ("a", {"mixing": MixingRecipe(weights="language")}, "needs teachers of two languages or more"),
        ("b.jsonl", {}, "annotations are no encoder that a student could start from; give encoder="),
    ],
)
def test_teachers_that_do_not_fit_the_recipe_are_refused(teacher, keys, message):
    with pytest.raises(RecipeError, match=message):
        DistillRecipe(target="de", teacher=teacher, **keys)


@pytest.mark.slow
def test_one_teacher_is_taken_as_it_is(bert_folder, text):
    found = taught(text, bert_folder)

    assert found.soft_labels.folder == text.parent / "store"
    assert found.soft_labels.card.teacher == teacher_fingerprint(bert_folder)
    assert [path.name for path in (text.parent / "store").glob("mixed-*")] == []


@pytest.mark.slow
def test_tags_are_mixed_by_name_and_not_by_number(bert_folder, text, tmp_path):
    order = [3, 6, 0, 5, 1, 4, 2]
    copy = with_tags(bert_folder, [LABELS.tags[place] for place in order], tmp_path / "copy")
    # The copy's outputs are not reordered, so that its tags mean something else: mixed, each name has both.
    alone = taught(text, bert_folder).soft_labels

    mixed = taught(text, f"{bert_folder},{copy}").soft_labels

    assert (mixed.card.tags, len(mixed)) == (LABELS.tags, len(SENTENCES))
    for number in range(len(mixed)):
        probs = alone.probs(number).astype(float)
        renamed = np.zeros_like(probs)
        renamed[:, order] = probs
        np.testing.assert_allclose(mixed.probs(number), (probs + renamed) / 2, atol=2 * FP16_STEP)
        assert mixed.words(number) == alone.words(number)
        assert mixed.weights(number).tolist() == [1.0] * len(probs)
    first, second = (mixed.projections(number).astype(np.float32)[0] for number in (0, 1))
    ours, theirs = (alone.projections(number).astype(np.float32)[0] for number in (0, 1))
    assert mixed.similarities(first, second) == pytest.approx(alone.similarities(ours, theirs), abs=0.01)
    assert mixed.card.projection_size == 2 * alone.card.projection_size


@pytest.mark.slow
def test_teachers_of_other_tokenizers_schemes_and_types_make_one_set_of_tags(bert_folder, foreign_folder, text):
    rename = MixingRecipe(weights="3,1", rename="PERSON=PER,GPE=LOC")

    found = taught(text, f"{bert_folder},{foreign_folder}", mixing=rename)

    assert found.soft_labels.card.tags == LABELS.tags
    assert [row["weight"] for row in found.teachers] == [0.75, 0.25]
    first, second = (found.by_model[name] for name in (bert_folder, foreign_folder))
    for number in range(len(SENTENCES)):
        ours, theirs = first.probs(number).astype(float), second.probs(number).astype(float)
        org = [LABELS.tags.index(tag) for tag in ("B-ORG", "I-ORG")]
        mixed = found.soft_labels.probs(number)
        begins = 0.75 * ours[:, LABELS.tags.index("B-PER")] + 0.25 * theirs[:, [0, 5]].sum(axis=1)
        total = begins + ours[:, org].sum(axis=1) + 0.75 * ours[:, LABELS.tags.index("I-PER")]
        total += (
            0.25 * theirs[:, [3, 4]].sum(axis=1)
            + 0.75 * ours[:, 1:3].sum(axis=1)
            + 0.25 * theirs[:, [2, 6]].sum(axis=1)
        )
        scale = np.maximum(total, 1.0)
        np.testing.assert_allclose(mixed[:, LABELS.tags.index("B-PER")], begins / scale, atol=4 * FP16_STEP)
        np.testing.assert_allclose(mixed[:, org], ours[:, org] / scale[:, None], atol=4 * FP16_STEP)


@pytest.mark.slow
def test_a_single_teacher_of_another_scheme_is_brought_to_iob2(foreign_folder, text):
    found = taught(text, foreign_folder)

    assert found.soft_labels.card.tags == LabelSet.of_types(["GPE", "PERSON"]).tags
    assert found.soft_labels.probs(0).astype(float).sum(axis=1) == pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
def test_a_stored_mixture_is_found_again_and_another_one_is_made_for_other_weights(bert_folder, foreign_folder, text):
    teacher = f"{bert_folder},{foreign_folder}"

    folders = [
        taught(text, teacher, mixing=MixingRecipe(weights=weights)).soft_labels.folder
        for weights in ("1,2", "1,2", "1,3")
    ]

    assert folders[0] == folders[1] != folders[2]
    assert len(list((text.parent / "store").glob("mixed-*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rename", "error", "message"),
    [
        ("PERSN=PER", LabelError, "names PERSN, a type not found in the teachers; .* did you mean PERSON"),
        ("*=", LabelError, "drops all types of the teachers"),
    ],
)
def test_a_renaming_that_fits_no_teacher_is_refused(foreign_folder, bert_folder, text, rename, error, message):
    with pytest.raises(error, match=message):
        taught(text, f"{foreign_folder},{bert_folder}", mixing=MixingRecipe(rename=rename))


@pytest.mark.slow
def test_a_teacher_that_is_not_there_or_has_no_o_is_refused(bert_folder, text, tmp_path):
    without = with_tags(bert_folder, [f"B-{name}" for name in "ABCDEFG"], tmp_path / "without")

    with pytest.raises(ModelError, match="teacher=runs/nope/model: no such folder"):
        taught(text, f"{bert_folder},runs/nope/model")
    with pytest.raises(LabelError, match=r"without: a tagger needs the tag O; found B-A"):
        taught(text, f"{bert_folder},{without}")


@pytest.mark.slow
def test_a_student_of_two_models_and_annotations_knows_all_their_types(
    bert_folder, foreign_folder, small_data, tmp_path
):
    lines = (small_data / "de" / "train.txt").read_text(encoding="utf-8").splitlines()
    records = [{"types": ["TIME"]}]
    for line in lines:
        start = line.find("heute")
        spans = [{"start": start, "end": start + 5, "label": "TIME", "score": 0.9}] if start >= 0 else []
        records.append({"text": line, "spans": spans})
    (tmp_path / "times.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    teacher = f"{bert_folder},{foreign_folder},times.jsonl"

    done = run_script(
        DISTILL,
        *("target=de", f"teacher={teacher}", f"data={small_data}", "mixing.rename=PERSON=PER,GPE=LOC"),
        *(*BRIEF, "variant=calibrated", "denoising=pooling"),
        cwd=tmp_path,
    )

    assert done.status == 0, done.stderr
    run = tmp_path / "runs" / "first"
    report = json.loads((run / "report.json").read_text())
    assert load_tagger(run / "model").types == ("LOC", "ORG", "PER", "TIME")
    assert [row["teacher"] for row in report["teachers"]] == teacher.split(",")
    assert [row["fingerprint"] for row in report["teachers"]][:2] == [
        teacher_fingerprint(bert_folder),
        teacher_fingerprint(foreign_folder),
    ]
    assert [row["weight"] for row in report["teachers"]] == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert list(report["scores"]) == ["teacher", "teacher 2", "student"]
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "runs" / "soft-labels").iterdir())
    assert (names.count("mixed"), len(names)) == (1, 3)
    assert f"times.jsonl: {len(set(lines))} records, 60 sentences of the text have one" in done.stdout


@pytest.mark.slow
def test_annotations_alone_teach_a_student_that_starts_from_an_encoder(tiny_encoder, small_data, tmp_path):
    lines = (small_data / "de" / "train.txt").read_text(encoding="utf-8").splitlines()
    records = []
    for words in map(str.split, lines):
        places = [number for number, word in enumerate(words) if word == "Kiel"]
        spans = [{"start": place, "end": place + 1, "label": "LOC"} for place in places]
        records.append({"words": words, "spans": spans})
    (tmp_path / "places.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = ("target=de", "teacher=places.jsonl", f"data={small_data}", *BRIEF)

    headless = run_script(DISTILL, *arguments, f"encoder={tiny_encoder}", "variant=calibrated", cwd=tmp_path)
    learnt = run_script(DISTILL, *arguments, f"encoder={tiny_encoder}", cwd=tmp_path)

    assert learnt.status == 0, learnt.stderr
    assert load_tagger(tmp_path / "runs" / "first" / "model").types == ("LOC",)
    assert headless.status == 2
    assert "places.jsonl: none of these teachers has a similarity head" in headless.messages[-1]
    assert json.loads((tmp_path / "runs" / "first" / "report.json").read_text())["scores"].keys() == {"student"}


@pytest.mark.slow
def test_two_processes_make_the_mixture_that_one_makes(bert_folder, foreign_folder, small_data, tmp_path):
    arguments = ("target=de", f"teacher={bert_folder},{foreign_folder}", f"data={small_data}", *BRIEF)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    alone = run_script(DISTILL, *arguments, cwd=tmp_path / "one")
    both = run_on_two(DISTILL, *arguments, cwd=tmp_path / "two")

    assert [done.status for done in (alone, *both)] == [0, 0, 0], both[0].stderr
    first, second = (
        SoftLabels(next((tmp_path / name / "runs" / "soft-labels").glob("mixed-*"))) for name in ("one", "two")
    )
    assert (first.folder.name, first.card) == (second.folder.name, second.card)
    for number in range(len(first)):
        np.testing.assert_allclose(first.probs(number), second.probs(number), atol=FP16_STEP)
