"""The step `neighbours`: words whose neighbours by hidden states disagree with them are trusted less."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from xlner.config.schema import DistillRecipe, NeighboursRecipe
from xlner.errors import RecipeError
from xlner.soft_labels.label import DenoisingContext, TextWords, derived_soft_labels, trusted_rows
from xlner.soft_labels.store import SoftLabels, SoftRow
from xlner.tags import split_tag

# Consistency of soft labels among neighbours: a word is trusted as far as words with like hidden states agree.
#
#     c_i = mean over the K nearest other words j of the probability that j is of the type of word i's likeliest tag
#     r_i = c_i / max c_k                                over the words k with the likeliest tag of word i
#     w_i = sigma(slope (r_i - mean r_k)) / max w_k      over the same words
#
# The published code counts neighbours by their decided types; here their probabilities are added up instead, which is
# the same where these are 0 or 1. There as here, B-X and I-X of neighbours are not told apart, and the maxima and the
# mean are those of each tag. Shapes: N words, C tags, T types (`O` is one), K neighbours.
#
# Source: Ma et al. 2023, CoLaDa (2023.acl-long.330), section 3.3, and its code, `load_knn` in `ts_trainer.py`.


def type_probs(probs: Tensor, tags: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Probabilities of entity types instead of tags.

    Args:
        probs: Of tags, (N, C).
        tags: Their names, (C,).

    Returns:
        Probabilities of types, (N, T), and which type each tag has, (C,).
    """
    names = [split_tag(tag)[1] for tag in tags]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    type_of_tag = torch.tensor([numbers[name] for name in names], device=probs.device)
    return probs @ F.one_hot(type_of_tag, len(numbers)).to(probs.dtype), type_of_tag


def consistency(by_type: Tensor, types: Tensor, neighbours: Tensor) -> Tensor:
    """The c of the formula above, for a block of words.

    Args:
        by_type: Probabilities of types of all words, (N, T).
        types: The type of the likeliest tag of each word of the block, (B,).
        neighbours: Places of its neighbours, (B, K).

    Returns:
        In [0, 1], (B,).
    """
    return by_type[neighbours, types[:, None]].mean(dim=1)


def consistency_weights(values: Tensor, tag_ids: Tensor, slope: float) -> Tensor:
    """The w of the formula above.

    Args:
        values: c of all words, (N,).
        tag_ids: Their likeliest tags, (N,).
        slope: Of the sigmoid; 6 as published. The larger, the more the weights tell words apart.

    Returns:
        In (0, 1], (N,); 1 for the most consistent word of each tag.
    """
    weights = torch.ones_like(values)
    for tag_id in set(tag_ids.tolist()):
        rows = tag_ids == tag_id
        # A tag that no neighbour ever has leaves no word above another.
        ratios = values[rows] / values[rows].max().clamp(min=torch.finfo(values.dtype).tiny)
        found = torch.sigmoid(slope * (ratios - ratios.mean()))
        weights[rows] = found / found.max()
    return weights


# The nearest other words of a text by the cosine of their vectors. Shapes: N words, D width, K neighbours.
#
# A search is made once for all vectors, and then asked for one block of words after the other.


# The places of the K nearest other words, (words of the block, K), in no particular order.
Nearest = Callable[[range], Tensor]

# Similarities held at a time: 256 MiB of float32, however long the text is.
BLOCK_SIZE = 1 << 26
# Words that faiss is asked for at a time.
FAISS_BLOCK = 4096


def blocks(n_words: int) -> list[range]:
    """All words of a text in blocks, such that the similarities of a block to all words fit into `BLOCK_SIZE`."""
    step = min(FAISS_BLOCK, max(1, BLOCK_SIZE // max(1, n_words)))
    return [range(start, min(start + step, n_words)) for start in range(0, n_words, step)]


def exact_search(vectors: Tensor, n_neighbours: int) -> Nearest:
    """Compare each word with all others, by matrix products in float32 on the device of the vectors.

    Args:
        vectors: Of unit length, (N, D).
        n_neighbours: K, less than N.
    """

    def nearest(block: range) -> Tensor:
        similar = vectors[block.start : block.stop] @ vectors.T
        here = torch.arange(len(block), device=vectors.device)
        similar[here, here + block.start] = -torch.inf  # a word is not its own neighbour
        return similar.topk(n_neighbours, dim=1, sorted=False).indices

    return nearest


def faiss_search(vectors: Tensor, n_neighbours: int) -> Nearest:
    """The same by faiss (`IndexFlatIP`), on the CPU; arguments as for `exact_search`.

    Source: Johnson et al. 2017 (arXiv:1702.08734); https://github.com/facebookresearch/faiss.
    """
    import faiss  # an extra

    rows = vectors.float().cpu().contiguous().numpy()
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)

    def nearest(block: range) -> Tensor:
        found = torch.from_numpy(index.search(rows[block.start : block.stop], n_neighbours + 1)[1])
        is_other = found != torch.arange(block.start, block.stop)[:, None]
        # Where many vectors are equal, a word may be missing among its own neighbours: then the last one goes.
        is_other[is_other.all(dim=1), -1] = False
        return found[is_other].view(len(block), n_neighbours).to(vectors.device)

    return nearest


def check_search(name: str) -> None:
    """Refuse a search that cannot be made here.

    Raises:
        RecipeError: If it needs a library that is not installed.
    """
    if name == "faiss" and find_spec("faiss") is None:
        raise RecipeError(
            "neighbours.search=faiss, but faiss is not installed: pip install 'xlner[faiss]', or set "
            "neighbours.search=exact"
        )


SEARCHES: dict[str, Callable[[Tensor, int], Nearest]] = {"exact": exact_search, "faiss": faiss_search}


# The step `neighbours`: words whose neighbours disagree with them are trusted less.


def check_neighbours(recipe: DistillRecipe) -> None:
    """Refuse a search that cannot be made here."""
    check_search(recipe.neighbours.search)


def weighed_by_neighbours(soft_labels: SoftLabels, recipe: DistillRecipe, context: DenoisingContext) -> SoftLabels:
    """The formula stands in `soft_labels/neighbours.py`; the processes share the words among them."""
    settings = asdict(recipe.neighbours)

    def rows() -> Iterable[SoftRow]:
        words = TextWords.of(soft_labels, context.accelerator.device)
        units = F.normalize(words.vectors(context.hidden(recipe.neighbours.layers)), dim=1)
        values = _consistencies(words.probs, units, soft_labels.card.tags, recipe.neighbours, context)
        weights = consistency_weights(values, words.probs.argmax(dim=1), recipe.neighbours.slope)
        return trusted_rows(soft_labels, words.by_sentence(weights, soft_labels))

    return derived_soft_labels(soft_labels, "neighbours", settings, rows, context.accelerator)


def _consistencies(
    probs: Tensor, units: Tensor, tags: tuple[str, ...], recipe: NeighboursRecipe, context: DenoisingContext
) -> Tensor:
    """The c of all words, (N,); a word without others is taken to agree with itself."""
    accelerator = context.accelerator
    by_type, type_of_tag = type_probs(probs, tags)
    types = type_of_tag[probs.argmax(dim=1)]
    n_neighbours = min(recipe.count, len(probs) - 1)
    if n_neighbours < 1:
        return torch.ones(len(probs), device=probs.device)
    nearest = SEARCHES[recipe.search](units, n_neighbours)
    values = torch.zeros(len(probs), device=probs.device)
    bar = tqdm(
        total=len(probs),
        desc="neighbours",
        unit=" words",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    with bar:
        for number, block in enumerate(blocks(len(probs))):
            # Blocks are the same for any number of processes, and so are the values.
            if number % accelerator.num_processes == accelerator.process_index:
                here = slice(block.start, block.stop)
                values[here] = consistency(by_type, types[here], nearest(block))
            bar.update(len(block))
    return accelerator.reduce(values)  # type: ignore[no-any-return]
