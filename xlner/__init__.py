"""xlner: named-entity taggers for languages without labels.

`import xlner` is cheap: the public names are loaded when they are first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlner.config.load import load_recipe as load_recipe
    from xlner.jobs.adapt import adapt_encoder as adapt_encoder
    from xlner.jobs.distill import distill as distill
    from xlner.jobs.teacher import train_teacher as train_teacher
    from xlner.tag_batch import TagBatch as TagBatch
    from xlner.tagger import Tagger as Tagger
    from xlner.tagger import load_tagger as load_tagger

__version__ = "0.2.0"

_HOMES = {
    "load_tagger": "xlner.tagger",
    "Tagger": "xlner.tagger",
    "TagBatch": "xlner.tag_batch",
    "train_teacher": "xlner.jobs.teacher",
    "distill": "xlner.jobs.distill",
    "adapt_encoder": "xlner.jobs.adapt",
    "load_recipe": "xlner.config.load",
}
__all__ = ["TagBatch", "Tagger", "adapt_encoder", "distill", "load_recipe", "load_tagger", "train_teacher"]


def __getattr__(name: str) -> object:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'xlner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
