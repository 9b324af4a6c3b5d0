import json
import pickle
import sys

import datasets
import numpy
import pandas
import pyarrow
import pytest

from xlner import TagBatch, load_tagger
from xlner.errors import CorpusError

TEXTS = ["Angela Merkel besuchte Kiel .", "", None, "Anna O'Brien sprach ."]


@pytest.fixture
def tag(linear):
    return TagBatch(linear)


@pytest.fixture
def expected(linear):
    tagger = load_tagger(linear)
    return [[entity.to_dict() for entity in tagger.tag(text or "")] for text in TEXTS]


def test_each_kind_of_batch_keeps_its_columns_and_gets_the_taggers_entities(tag, expected):
    rows = {"id": [1, 2, 3, 4], "text": TEXTS, "entities": [0, 0, 0, 0]}

    as_dict, as_table, as_frame = tag(rows), tag(pyarrow.table(rows)), tag(pandas.DataFrame(rows))

    assert any(expected)
    assert as_dict == {"id": [1, 2, 3, 4], "text": TEXTS, "entities": expected}
    assert as_table.to_pydict() == as_dict
    assert as_frame["entities"].tolist() == expected
    assert list(as_frame.columns) == as_table.column_names == ["id", "text", "entities"]
    assert [frame["entities"].tolist() for frame in tag(iter([as_frame, as_frame]))] == [expected, expected]


@pytest.mark.parametrize("as_json", [True, False])
def test_types_are_the_same_with_and_without_entities(linear, as_json):
    tag = TagBatch(linear, as_json=as_json)
    found = [tag(pyarrow.table({"text": pyarrow.array(texts, "string")})) for texts in (TEXTS, [""], [])]
    frames = [tag(pandas.DataFrame({"text": texts})) for texts in (TEXTS, [""], [])]

    assert len({str(table.schema) for table in found}) == 1
    assert len({str(frame.dtypes["entities"]) for frame in frames}) == 1


def test_json_holds_the_same_entities(linear, expected):
    assert [json.loads(text) for text in TagBatch(linear, as_json=True)({"text": TEXTS})["entities"]] == expected


def test_a_pickled_one_is_small_and_opens_the_model_by_its_name(tag, expected):
    tag({"text": TEXTS})

    pickled = pickle.dumps(tag)

    assert len(pickled) < 1000
    assert pickle.loads(pickled)({"text": TEXTS})["entities"] == expected


def test_another_model_at_the_same_place_is_pickled_otherwise(tag, linear):
    (linear / "note.txt").write_text("trained anew")

    assert pickle.dumps(TagBatch(linear)) != pickle.dumps(tag)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_datasets_keeps_the_types_of_other_columns_where_first_batches_have_no_entities(tag, expected, num_proc):
    label = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    given = datasets.Dataset.from_dict({"text": ["", "", *TEXTS], "label": [0, 1, 0, 1, 0, 1]}, features=features)

    found = given.map(tag, batched=True, batch_size=2, num_proc=num_proc)

    assert found["entities"][:] == [[], [], *expected]
    assert found.features["label"] == label
    assert found["label"][:] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"body": ["a"]}, "no column 'text' in the batch; found body; give text="),
        ({"text": ["a", 7]}, "column 'text', row 1 of the batch: expected a text, found 7"),
        ({"text": "Kiel"}, "column 'text' is a single text; expected a batch of columns, as in {'text': \\[text"),
        (pandas.DataFrame({"text": [numpy.array(["a", "b"])]}), "row 0 of the batch: expected a text, found array"),
    ],
)
def test_what_is_no_text_is_told_by_its_place(tag, batch, message):
    with pytest.raises(CorpusError, match=message):
        tag(batch)


def test_what_is_no_batch_is_refused(tag):
    with pytest.raises(TypeError, match=r"expected a batch of columns .*; found str"):
        tag("Kiel")


def test_missing_texts_of_pandas_have_no_entities(tag):
    frame = pandas.DataFrame({"text": pandas.array(["", None], "string")})

    assert tag(frame)["entities"].tolist() == [[], []]
    assert tag(pandas.DataFrame({"text": [float("nan"), None]}))["entities"].tolist() == [[], []]
    assert tag({"text": [pandas.NaT, pandas.NA, float("nan"), None]})["entities"] == [[]] * 4


@pytest.mark.slow
def test_spark_maps_frames_of_pandas(tag, expected, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    try:
        spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    except Exception as problem:  # noqa: BLE001 - of several kinds, where there is no Java
        pytest.skip(f"Spark does not start: {problem}")
    given = spark.createDataFrame([(number, text) for number, text in enumerate(TEXTS)], "id long, text string")

    rows = given.mapInPandas(tag, tag.spark_schema(given.schema)).orderBy("id").collect()

    spark.stop()
    assert [[entity.asDict() for entity in row["entities"]] for row in rows] == expected


def test_dask_maps_partitions(tag, expected):
    dataframe = pytest.importorskip("dask.dataframe")
    given = dataframe.from_pandas(pandas.DataFrame({"text": TEXTS}), npartitions=2)

    found = given.map_partitions(tag, meta=tag(given.head(0)))

    assert found.compute(scheduler="threads")["entities"].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("batch_format", ["pyarrow", "pandas"])
def test_ray_data_maps_batches(tag, expected, batch_format):
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    ray.init(address="local", num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
    try:
        given = data.from_items([{"text": text or "", "id": number} for number, text in enumerate(["", "", *TEXTS])])
        rows = given.map_batches(tag, batch_format=batch_format, batch_size=2).sort("id").take_all()
    finally:
        ray.shutdown()

    assert [list(row["entities"]) for row in rows] == [[], [], *expected]
