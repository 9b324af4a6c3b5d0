"""The schema of `tag_corpus.py`: what is tagged with what, and how the work is cut."""

from dataclasses import dataclass

from xlner.errors import RecipeError
from xlner.recipe_keys import check_bounds, key


@dataclass(frozen=True)
class TagRecipe:
    """A corpus to tag; model, input and output have no defaults."""

    model: str = key("", "model folder such as runs/de/model, or hub name")
    input: str = key("", "file, folder or quoted glob of .parquet, .jsonl or .txt files; other suffixes are left alone")
    output: str = key("", "folder for the result: Parquet becomes Parquet, the others JSONL")
    shard_megabytes: float = key(
        16.0, "input that is tagged and published as a whole, in 10^6 bytes", low=1e-6, high=1e6
    )
    on_error: str = key("stop", "stop at a record that cannot be read, or skip it", choices="stop skip")
    batch_pieces: int = key(
        0, "subword pieces per forward pass, padding included; 0: what suits the device", low=0, high=10_000_000
    )
    cpu: bool = key(False, "compute on the CPU even where there is a GPU")
    threads: int = key(0, "CPU threads of each process; 0: the cores, shared out among the processes here", low=0)

    def __post_init__(self) -> None:
        """Check the bounds, and that all is named."""
        check_bounds(self)
        for name, value in (("model", self.model), ("input", self.input), ("output", self.output)):
            if not value:
                raise RecipeError(f"{name}= is missing; as in model=runs/de/model input=corpus output=tagged")
