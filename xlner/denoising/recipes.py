"""The recipe sections of the denoising steps, one for each line of `training/denoising.py`'s table."""

from dataclasses import dataclass

from xlner.errors import RecipeError
from xlner.recipe_keys import check_bounds, key

# The most that an unsure teacher lets `pooling.strength=auto` become; `pooling.strength_for` says when.
MOST_STRENGTH = 1.45


@dataclass(frozen=True)
class PoolingRecipe:
    """How far soft labels follow what the teacher says in like places; the formula stands in `denoising/pooling.py`."""

    word: float = key(0.15, "weight of the same word elsewhere in the text", low=0, high=1)
    left: float = key(0.075, "weight of places with the same word before", low=0, high=1)
    right: float = key(0.075, "weight of places with the same word after", low=0, high=1)
    outline: float = key(0.3, "weight of places with the same pattern of capitals around", low=0, high=1)
    strength: str = key(
        "auto",
        "multiplies the four weights: a number, or auto: 1 for a teacher that is sure, up to 1.45 for an unsure one",
    )
    outside: float = key(
        0.5,
        "share of the way to as many words outside entities as in the source language, as far as labels are doubtful; "
        "0: left as it is",
        low=0,
        high=1,
    )
    temperature: float = key(0.5, "divides the logits of what was pooled; below 1 sharpens", low=0.05, high=20)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "pooling")
        strength = MOST_STRENGTH if self.fixed_strength is None else self.fixed_strength
        total = sum(self.weights.values()) * strength
        if total > 1.0 + 1e-9:
            raise RecipeError(
                f"pooling: {', '.join(self.weights)}, times a strength of up to {strength:g}, add up to {total:g}; "
                "they may be 1 together at most; lower them, or set pooling.strength to a number"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the kinds of like places, by the names of `pooling.KEYS`, before the strength."""
        return {"word": self.word, "left": self.left, "right": self.right, "outline": self.outline}

    @property
    def fixed_strength(self) -> float | None:
        """The strength that the recipe gives; None for `auto`, which looks at the teacher's labels.

        Raises:
            RecipeError: If it is neither.
        """
        if self.strength == "auto":
            return None
        try:
            strength = float(self.strength)
        except ValueError:
            strength = -1.0
        if not 0.0 <= strength < float("inf"):
            raise RecipeError(f"pooling.strength is {self.strength!r}; it must be auto or a number from 0 on")
        return strength

    @property
    def is_used(self) -> bool:
        """Whether it changes any soft label."""
        pools = any(self.weights.values()) and self.fixed_strength != 0.0
        return pools or self.outside > 0 or self.temperature != 1.0


@dataclass(frozen=True)
class NeighboursRecipe:
    """How far words are trusted whose neighbours disagree; the formula stands in `denoising/neighbours.py`."""

    count: int = key(500, "nearest other words that are asked; as many as there are, if fewer", low=1, high=100_000)
    layers: int = key(3, "last layers of the teacher whose mean tells which words are near", low=1, high=1000)
    slope: float = key(6.0, "how far more and less consistent words are told apart; 0: not at all", low=0, high=1000)
    search: str = key("exact", "exact, or faiss (needs the extra `faiss`)", choices="exact faiss")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "neighbours")


@dataclass(frozen=True)
class PrototypesRecipe:
    """How far labels drift towards the nearest class prototype; the formula stands in `denoising/prototypes.py`."""

    steps: int = key(5, "how often prototypes and labels are made anew", low=1, high=1000)
    first: float = key(0.95, "share of themselves that labels keep in the first step", low=0, high=1)
    last: float = key(0.8, "the same in the last step", low=0, high=1)
    temperature: float = key(0.15, "divides the cosines; the smaller, the more the nearest prototype alone", low=1e-3)
    layers: int = key(3, "last layers of the teacher whose mean is compared", low=1, high=1000)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "prototypes")


@dataclass(frozen=True)
class DiscriminatorRecipe:
    """Which sentences are like the source language's; the formulas stand in `denoising/discriminator.py`."""

    keep: float = key(0.8, "share of the sentences that is kept: those nearest to undecided", low=0.001, high=1)
    folds: int = key(5, "parts of the sentences, each scored by a discriminator that saw the others", low=2, high=100)
    penalty: float = key(0.01, "of the discriminator's squared weights", low=1e-9, high=1000)
    layers: int = key(3, "last layers of the teacher whose mean is compared", low=1, high=1000)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "discriminator")


@dataclass(frozen=True)
class CertaintyRecipe:
    """Which words are certain enough to be learnt from."""

    share: float = key(0.8, "of the entities of each type, the most certain ones, that is kept", low=0.001, high=1)
    outside: float = key(0.0, "words of O are kept from this probability on; 0: all", low=0, high=1)
    skip_invalid: bool = key(True, "leave out sentences in which an I-X follows something else")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "certainty")
