"""The recipe sections of small students: compact ones, of words and characters, and what is left of a transformer."""

from dataclasses import dataclass

from xlner.recipe_keys import check_bounds, key


@dataclass(frozen=True)
class CompactRecipe:
    """What a compact student is made of, and what it learns beside the soft labels."""

    decoder: str = key(
        "softmax",
        "softmax: each word by itself; crf: whole sequences, and of them the marginals of each word",
        choices="softmax crf",
    )
    hard_weight: float = key(
        0.3, "share of the task loss: gold tags where there are any, else the likeliest ones by the soft labels", low=0
    )
    words: int = key(14_000, "words of its own vocabulary at most, the most frequent ones of the text", low=1)
    min_frequency: int = key(2, "a word of the vocabulary occurs at least so often in the text", low=1)
    word_size: int = key(100, "width of a word's vector", low=1, high=4096)
    vectors: str = key(
        "teacher",
        "what word vectors start from: random, teacher (its own table of pieces, reduced to word_size), or a text file "
        "of word2vec, GloVe or fastText, of word_size numbers a line",
    )
    chars: int = key(20, "characters of a word that are looked at; a longer one keeps its two ends", low=2, high=200)
    char_size: int = key(25, "width of a character's vector", low=1, high=1024)
    char_filters: int = key(50, "filters of the character convolution, each 3 characters wide", low=1, high=4096)
    hidden_size: int = key(256, "width of a layer, in each direction", low=1, high=4096)
    layers: int = key(1, "layers", low=1, high=24)
    dropout: float = key(0.4, "share of units that are dropped in training", low=0, high=0.95)
    unknown_ratio: float = key(
        0.1, "share of words that are shown without their entry in the vocabulary, as unknown ones are", low=0, high=0.9
    )
    augment: int = key(
        0, "new sentences for each one of the target text, labelled by the teacher: words hidden or exchanged", low=0
    )
    buckets: int = key(131_072, "rows of the table of hashed features (linear)", low=256, high=1 << 24)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "compact")


@dataclass(frozen=True)
class ReductionRecipe:
    """What is left of the encoder that a student starts from (`student=transformer`)."""

    layers: int = key(0, "layers that are kept, spread evenly over those there are; 0: half of them", low=0, high=1000)
    feed_forward: int = key(
        0, "units of each feed-forward part that are kept, those of the largest weights; 0: all", low=0, high=1 << 20
    )
    min_frequency: int = key(
        1, "a piece of the vocabulary is kept if it occurs at least so often in the text; 0: all are kept", low=0
    )

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "reduction")
