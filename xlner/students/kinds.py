"""Which kinds of compact students there are, and how a network of a kind is made."""

from collections.abc import Callable, Sequence

from torch import nn

from xlner.students.bilstm import BiLstm
from xlner.students.cnn import DilatedCnn
from xlner.students.crf import Crf
from xlner.students.linear import HashedLinear
from xlner.students.network import CompactNetwork
from xlner.students.settings import Sizes, StudentSettings


def new_network(
    settings: StudentSettings, width: int, *, dropout: float = 0.0, unknown_ratio: float = 0.0
) -> CompactNetwork:
    """A network before training, drawn from torch's global generator.

    Args:
        settings: Of the student.
        width: Numbers of a word's row.
        dropout: Share of units, or features, that are dropped in training.
        unknown_ratio: Share of words that are shown as unknown ones in training.
    """
    body = BODIES[settings.kind](settings.sizes, settings.tags, dropout, unknown_ratio)
    return CompactNetwork(body, width, Crf(settings.tags) if settings.decoder == "crf" else None)


# A new kind is one file and one line here, with its defaults in `recipe.STUDENTS`.
BODIES: dict[str, Callable[[Sizes, Sequence[str], float, float], nn.Module]] = {
    "bilstm": BiLstm,
    "cnn": DilatedCnn,
    "linear": HashedLinear,
}
