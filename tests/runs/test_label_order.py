"""Teachers, students and corpora meet by the names of tags: in which order a model counts them changes nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import LABELS, SENTENCES
from runs import DISTILL, TEACHER, TINY, run_script, sentences, write_conll
from safetensors.torch import load_file, save_file

from xlner import load_tagger
from xlner.config.load import PUBLISHED, VARIANTS
from xlner.config.schema import CorpusRecipe, DistillRecipe
from xlner.evaluate import evaluate_tags
from xlner.jobs.transformer_student import new_student
from xlner.models.inference import sentence_probs
from xlner.models.token_classifier import load_recognizer, new_recognizer
from xlner.soft_labels.label import soft_labels_of
from xlner.tags import LabelSet

ORDER = [3, 6, 0, 5, 1, 4, 2]
SHUFFLED = LabelSet(tuple(LABELS.tags[place] for place in ORDER))
WORDS = [sentence.split() for sentence in SENTENCES]
BRIEF = (*(argument for argument in TINY if "epochs" not in argument), "optimization.epochs=2", "run=first")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shuffled_folder(bert_folder, tmp_path_factory):
    """The same model with its tags, and the rows of its head, in another order."""
    folder = Path(shutil.copytree(bert_folder, tmp_path_factory.mktemp("shuffled") / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): tag for number, tag in enumerate(SHUFFLED.tags)}
    config["label2id"] = {tag: number for number, tag in enumerate(SHUFFLED.tags)}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][ORDER].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def soft_labels(teacher, text, store):
    return soft_labels_of(
        teacher, text, corpus=CorpusRecipe(), store=store, root=store, accelerator=Accelerator(cpu=True),
        autocast_dtype=None,
    )  # fmt: skip


def by_name(probs, tags):
    """Columns of probabilities in the order of `LABELS`."""
    return np.asarray(probs)[:, [tags.index(tag) for tag in LABELS.tags]]


@pytest.mark.slow
def test_soft_labels_of_a_teacher_are_the_same_by_name_in_every_order(bert_folder, shuffled_folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES))

    first, second = (
        soft_labels(folder, text, tmp_path / name) for folder, name in ((bert_folder, "a"), (shuffled_folder, "b"))
    )

    assert (first.card.tags, second.card.tags) == (LABELS.tags, SHUFFLED.tags)
    for number in range(len(SENTENCES)):
        one, other = (by_name(found.probs(number), found.card.tags) for found in (first, second))
        np.testing.assert_allclose(one, other, atol=1e-3)
        assert one.max() > 0.3


def test_a_tagger_and_its_scores_are_the_same_in_every_order(bert_folder, shuffled_folder):
    first, second = load_tagger(bert_folder), load_tagger(shuffled_folder)
    tags = first.tag_sentences(WORDS)

    report = evaluate_tags(second.types, tags, second.tag_sentences(WORDS)).report

    assert second.tag_sentences(WORDS) == tags
    assert (report.overall.f1, report.overall.support > 3) == (100.0, True)


# The published variants want a teacher with an encoder for each task, and heads that are drawn by column.
@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - set(PUBLISHED)))
def test_students_of_a_teacher_in_two_orders_are_the_same(bert_folder, shuffled_folder, small_data, tmp_path, variant):
    taggers, reports = [], []
    for name, folder in (("a", bert_folder), ("b", shuffled_folder)):
        (tmp_path / name).mkdir()
        arguments = ("target=de", f"teacher={folder}", f"data={small_data}", f"variant={variant}", *BRIEF)
        arguments += ("source.language=en",)  # the teacher says that its language is the target's
        assert run_script(DISTILL, *arguments, cwd=tmp_path / name).status == 0
        taggers.append(load_tagger(tmp_path / name / "runs" / "first" / "model"))
        reports.append(json.loads((tmp_path / name / "runs" / "first" / "report.json").read_text()))

    first, second = taggers
    assert (first.labels, second.labels) == (LABELS, SHUFFLED)
    for words in WORDS:
        one, other = (
            by_name(sentence_probs(tagger.model, tagger.encoder, [words], device=CPU)[0], tagger.labels.tags)
            for tagger in taggers
        )
        # Sums in another order differ in the last bit, which a second round of training makes larger.
        np.testing.assert_allclose(one, other, atol=5e-3)
    assert reports[0]["scores"] == reports[1]["scores"]
    assert sorted(reports[0]["types"]) == sorted(reports[1]["types"]) == ["LOC", "ORG", "PER"]


def test_a_student_that_starts_from_another_tagger_gets_the_rows_of_its_teachers_tags(bert_folder, shuffled_folder):
    recipe = DistillRecipe(target="de", teacher=bert_folder, encoder=shuffled_folder)

    model, encoder, _ = new_student(recipe, LABELS, 0.0, text=None, accelerator=None)

    other = load_tagger(shuffled_folder)
    assert list(model.recognizer.config.id2label.values()) == list(LABELS.tags)
    for words in WORDS:
        (mine,) = sentence_probs(model.eval(), encoder, [words], device=CPU)
        (theirs,) = sentence_probs(other.model, other.encoder, [words], device=CPU)
        np.testing.assert_allclose(mine, by_name(theirs, SHUFFLED.tags), atol=1e-5)


@pytest.mark.parametrize("types", [["LOC", "PER"], ["LOC", "MISC", "PER"], ["LOC", "MISC", "ORG", "PER"], ["GENE"]])
def test_a_head_for_other_types_keeps_the_rows_of_the_tags_that_it_shares(shuffled_folder, types, tmp_path):
    labels = LabelSet.of_types(types)

    model = new_recognizer(shuffled_folder, labels)

    old, *_ = load_recognizer(shuffled_folder)
    assert model.config.num_labels == len(labels.tags) == model.classifier.out_features
    for row, tag in enumerate(labels.tags):
        if tag in SHUFFLED.tags:
            assert torch.equal(model.classifier.weight[row], old.classifier.weight[SHUFFLED.tags.index(tag)])
        else:
            assert 0 < model.classifier.weight[row].abs().max() < 0.2  # fresh; the trained rows are larger
    model.save_pretrained(tmp_path / "saved")
    assert load_recognizer(str(tmp_path / "saved"))[1] == labels


@pytest.mark.slow
def test_a_teacher_maps_labels_and_students_are_scored_under_a_map(tiny_encoder, tmp_path):
    foreign = {"PER": "PERSON", "LOC": "GPE"}
    extra = [[("Kap", "B-EVENT"), ("Kiel", "B-GPE")]]
    for place, n, seed in (("en/train", 60, 1), ("en/dev", 20, 2), ("de/train", 60, 4), ("de/test", 20, 5)):
        rows = [[(word, tag[:2] + foreign.get(tag[2:], "")) for word, tag in row] for row in sentences(n, seed)]
        write_conll(tmp_path / "data" / f"{place}.conll", rows + extra)
    label_map = "PERSON=PER,GPE=LOC,EVENT="

    arguments = BRIEF
    taught = run_script(TEACHER, f"encoder={tiny_encoder}", *arguments, f"labels.map={label_map}", cwd=tmp_path)
    (tmp_path / "runs" / "first").rename(tmp_path / "runs" / "teacher")
    options = ("target=de", "teacher=runs/teacher/model", *arguments)
    refused = run_script(DISTILL, *options, cwd=tmp_path)
    mistyped = run_script(DISTILL, *options, "labels.map=PRSON=PER", cwd=tmp_path)
    learnt = run_script(DISTILL, *options, f"labels.map={label_map}", cwd=tmp_path)

    assert [done.status for done in (taught, refused, mistyped, learnt)] == [0, 2, 2, 0], taught.stderr + learnt.stderr
    assert "no type in common; rename types, as in labels.map=PERSON=PER" in refused.messages[-1]
    assert "names PRSON, a type not found in data/de/test.conll or the model" in mistyped.messages[-1]
    assert "did you mean PERSON?" in mistyped.messages[-1]
    for run in ("teacher", "first"):
        report = json.loads((tmp_path / "runs" / run / "report.json").read_text())
        assert (report["types"], report["label_map"]) == (["LOC", "PER"], label_map)
        assert {name for scores in report["scores"].values() for name in scores["types"]} == {"LOC", "PER"}
        assert f"map: {label_map}" in (tmp_path / "runs" / run / "recipe.yaml").read_text()
    assert load_tagger(tmp_path / "runs" / "first" / "model").types == ("LOC", "PER")
    assert "sentences also stand in data/en/train.conll" in taught.stdout
