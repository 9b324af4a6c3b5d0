"""Tagging inside other people's frameworks: one picklable callable for batches of columns.

datasets   dataset.map(TagBatch("runs/de/model"), batched=True, num_proc=4)
Ray Data   dataset.map_batches(TagBatch("runs/de/model"), batch_format="pyarrow")
pandas     TagBatch("runs/de/model")(frame)
Spark      frame.mapInPandas(tag, tag.spark_schema(frame.schema))
Dask       frame.map_partitions(tag, meta=tag(frame.head(0)))
"""

import json
import math
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlner.errors import CorpusError
from xlner.tagger import Tagger, Threshold, load_tagger

if TYPE_CHECKING:
    from pyarrow import DataType

_SPARK_TYPE = "array<struct<text:string,label:string,start:bigint,end:bigint,score:double>>"
_OPENING = threading.Lock()


class TagBatch:
    """Tags a column of texts: the same columns come back, and one of entities behind them.

    It holds names and options alone, so that it can be pickled anywhere. The model is opened with the first batch,
    once in each process. Called with

    - a `pandas.DataFrame`, a `pyarrow.Table` or a batch of `datasets`: gives a frame or a table, in which the entities
      are a list of structs (text, label, start, end, score) of one Arrow type, whatever a batch holds;
    - a dict of columns: a dict. Its lists have no type, and who guesses it from a batch without entities guesses
      wrong: take `as_json=True` where that happens;
    - an iterator of any of these: an iterator.

    A text that is missing (None, NaN) has no entities.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        text: str = "text",
        entities: str = "entities",
        as_json: bool = False,
        device: str = "cpu",
        precision: str = "fp32",
        threshold: Threshold = 0.0,
        types: Collection[str] | None = None,
    ) -> None:
        """Note what to do; nothing is opened.

        Args:
            model: Folder or hub name, as for `load_tagger`; every process opens it by this name.
            text: Name of the column of texts.
            entities: Name of the column of entities; one of that name is replaced.
            as_json: Give the entities of a text as JSON, a list of objects, in place of structs.
            device: As for `load_tagger`.
            precision: As for `load_tagger`.
            threshold: As for `Tagger.tag`.
            types: As for `Tagger.tag`.
        """
        self.model = fspath(model)
        self.text = text
        self.entities = entities
        self.as_json = as_json
        self.device = device
        self.precision = precision
        self.threshold = threshold
        self.types = None if types is None else tuple(types)
        # `datasets` finds its cached results by the pickled callable: a model of the same name must not look the same.
        files = sorted(Path(self.model).iterdir()) if Path(self.model).is_dir() else []
        self._model_files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]

    def __call__(self, batch: Any) -> Any:
        """The batch with the entities of its texts.

        Raises:
            CorpusError: If there is no such column, or it holds something else than texts.
            ModelError: If the model cannot be opened.
            TypeError: If it is no batch of a known kind.
        """
        batch = getattr(batch, "pa_table", batch)  # of `datasets`, whose types would be lost in a dict
        if hasattr(batch, "set_column"):  # pyarrow.Table
            return self._with_column(batch, batch.column_names, self._arrow)
        if hasattr(batch, "assign"):  # pandas.DataFrame
            return batch.assign(**{self.entities: self._series(self._found(batch, batch.columns), batch.index)})
        if isinstance(batch, Mapping):
            return {**batch, self.entities: self._found(batch, batch)}
        if isinstance(batch, Iterator):
            return map(self, batch)
        raise TypeError(
            f"expected a batch of columns (DataFrame, pyarrow.Table, dict of columns), or an iterator of such; "
            f"found {type(batch).__name__}"
        )

    def spark_schema(self, schema: Any) -> str:
        """The columns that Spark's `mapInPandas` gives, from the schema of the frame that it takes."""
        kept = [f"`{field.name}` {field.dataType.simpleString()}" for field in schema if field.name != self.entities]
        return ", ".join([*kept, f"`{self.entities}` {'string' if self.as_json else _SPARK_TYPE}"])

    def _with_column(self, table: Any, names: list[str], typed: Any) -> Any:
        column = typed(self._found(table, names))
        # The schema's own notes, as those of `datasets` on its types, would not know of the new column.
        if self.entities in names:
            table = table.drop_columns([self.entities])
        return table.append_column(self.entities, column)

    def _found(self, batch: Any, names: Iterable[Any]) -> list[Any]:
        """The entities of each text."""
        names = list(names)
        if self.text not in names:
            raise CorpusError(f"no column {self.text!r} in the batch; found {', '.join(map(str, names))}; give text=")
        column = batch[self.text]
        if isinstance(column, str | bytes):
            raise CorpusError(
                f"column {self.text!r} is a single text; expected a batch of columns, as in "
                f"{{{self.text!r}: [text, ...]}} (with `datasets`: batched=True)"
            )
        values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        texts = ["" if _is_missing(value) else value for value in values]
        if wrong := [(place, text) for place, text in enumerate(texts) if not isinstance(text, str)]:
            place, value = wrong[0]
            raise CorpusError(f"column {self.text!r}, row {place} of the batch: expected a text, found {value!r:.60}")
        if not texts:
            return []
        with _OPENING:
            tagger = _opened(self.model, self.device, self.precision)
        found = tagger.tag_batch(map(str, texts), threshold=self.threshold, types=self.types)
        lists = [[entity.to_dict() for entity in entities] for entities in found]
        return [json.dumps(one, ensure_ascii=False) for one in lists] if self.as_json else lists

    def _arrow(self, found: list[Any]) -> Any:
        import pyarrow

        return pyarrow.array(found, self._arrow_type())

    def _series(self, found: list[Any], index: Any) -> Any:
        import pandas

        if self.as_json:
            return pandas.Series(found, index=index, dtype=object)
        return pandas.Series(self._arrow(found), index=index, dtype=pandas.ArrowDtype(self._arrow_type()))

    def _arrow_type(self) -> "DataType":
        import pyarrow

        if self.as_json:
            return pyarrow.string()
        fields = {"text": pyarrow.string(), "label": pyarrow.string(), "start": pyarrow.int64(), "end": pyarrow.int64()}
        return pyarrow.list_(pyarrow.struct({**fields, "score": pyarrow.float64()}))


def _is_missing(value: Any) -> bool:
    """Whether there is no text: None, NaN, or what pandas has in their place, which cannot be compared."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


@lru_cache(maxsize=2)
def _opened(model: str, device: str, precision: str) -> Tagger:
    return load_tagger(model, device=device, precision=precision)
