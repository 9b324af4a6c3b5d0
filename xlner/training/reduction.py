"""A transformer student that is smaller than what it starts from: fewer layers, narrower ones, fewer pieces."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedModel

from xlner.compact_schema import ReductionRecipe
from xlner.data.alignment import Window, WordEncoder, load_tokenizer
from xlner.data.pruning import check_prunable, prune_tokenizer
from xlner.errors import ModelError
from xlner.models.encoder import checked_config, n_layers_of
from xlner.models.files import revision_of
from xlner.models.reduction import check_reducible, reduced
from xlner.schema import DistillRecipe
from xlner.training.labelling import check_teacher


def check_reduction(recipe: DistillRecipe) -> None:
    """Refuse what cannot be made smaller as the recipe says, before a teacher labels a whole text.

    Raises:
        ModelError: If the encoder has too few layers, is not built of plain ones, or its tokenizer cannot lose pieces.
    """
    name = recipe.model_teachers[0] if recipe.encoder == "teacher" else recipe.encoder
    if recipe.encoder == "teacher":
        check_teacher(name)
    revision = revision_of(recipe.encoder, recipe.encoder_revision)
    config = checked_config(name, revision)
    n_layers = int(getattr(config, "num_hidden_layers", 0))
    if 0 < n_layers < recipe.reduction.layers:
        raise ModelError(f"reduction.layers is {recipe.reduction.layers}; {name} has {n_layers}")
    fewer_pieces = bool(recipe.reduction.min_frequency)
    check_reducible(
        config, n_layers=recipe.reduction.layers, feed_forward=recipe.reduction.feed_forward, fewer_pieces=fewer_pieces
    )
    if fewer_pieces:
        check_prunable(load_tokenizer(name, revision))


def smaller_network(
    network: PreTrainedModel, encoder: WordEncoder, windows: Sequence[Window], recipe: ReductionRecipe
) -> tuple[PreTrainedModel, WordEncoder]:
    """What a recipe leaves of a network and its tokenizer.

    Args:
        network: The larger one.
        encoder: Its word encoder.
        windows: Of the text, by that encoder: they tell which pieces are used. Not looked at where all are kept.
        recipe: Says what is kept.

    Raises:
        ModelError: If the network or the tokenizer cannot be made smaller this way.
    """
    piece_ids = None
    if recipe.min_frequency:
        uses: Counter[int] = Counter()
        for window in windows:
            uses.update(window.piece_ids.tolist())
        tokenizer, piece_ids = prune_tokenizer(encoder.tokenizer, uses, recipe.min_frequency)
        encoder = WordEncoder(tokenizer, encoder.max_length)
    n_layers = recipe.layers or max(1, n_layers_of(network) // 2)
    smaller = reduced(network, n_layers=n_layers, feed_forward=recipe.feed_forward, piece_ids=piece_ids)
    return smaller, encoder
