"""What requests hold, and the answers; FastAPI checks the former and describes both."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from xlner.web.agreement import MARKS

MOST_ROUNDS = 50
MOST_OTHERS = 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Offsets = Literal["characters", "utf16"]
OffsetsField = Annotated[
    Offsets, Field(description="What start and end count: characters as Python, UTF-16 units as JavaScript.")
]
Threshold = Annotated[
    float, Field(ge=0, le=1, allow_inf_nan=False, description="Entities of a lower score are left out.")
]


class TagRequest(_Strict):
    """One text or several."""

    text: str | None = Field(None, description="One text; or else give texts.")
    texts: list[str] | None = Field(None, description="Several texts.")
    model: str | None = Field(None, description="A name of /v1/models; default: the first.")
    threshold: Threshold = 0.0
    types: list[str] | None = Field(None, description="Entities of other types are left out.")
    offsets: OffsetsField = "characters"


class FoundEntity(BaseModel):
    """An entity: `text[start:end]` of what was sent, and the probability of it."""

    text: str
    label: str
    start: int
    end: int
    score: float


class TaggedText(BaseModel):
    """The entities of one text, in order."""

    entities: list[FoundEntity]


class TagResponse(BaseModel):
    """A result for each text, in order; one for `text`."""

    model: str
    results: list[TaggedText]


class OtherEntity(_Strict):
    """An entity that something else found."""

    start: int
    end: int
    label: str = Field(min_length=1)
    score: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)


class OtherFindings(_Strict):
    """What something else than a served model found in the text, such as a model in the browser."""

    model: str = Field(min_length=1)
    entities: list[OtherEntity]


class CompareRequest(_Strict):
    """A text for several models."""

    text: str
    models: list[str] | None = Field(None, min_length=1, description="Names of /v1/models; default: all.")
    threshold: Threshold = 0.0
    rounds: int = Field(5, ge=1, le=MOST_ROUNDS, description="Timed runs after one that warms up; fewer if slow.")
    offsets: OffsetsField = "characters"
    others: list[OtherFindings] = Field([], max_length=MOST_OTHERS, description="To compare beside the models.")


class MarkedEntity(FoundEntity):
    """An entity, and how it stands to those of the other models."""

    mark: str = Field(description=f"One of {', '.join(MARKS)}.")


class Agreement(BaseModel):
    """Means over words; null where there are none. Jensen-Shannon divergence in bits."""

    words: int
    cosine: float | None
    jensen_shannon: float | None


class AgreementWithFirst(BaseModel):
    """Of the tag probabilities with those of the first model."""

    all_words: Agreement
    entity_words: Agreement = Field(description="Words that either model takes for a part of an entity.")


class Seconds(BaseModel):
    """Of the timed runs."""

    median: float
    p95: float
    runs: int


class ComparedModel(BaseModel):
    """What one model found, how long it took, and how far it agrees with the first; null for the first itself.

    Of `others` no more is known than what they found: all else is null.
    """

    model: str
    entities: list[MarkedEntity]
    seconds: Seconds | None
    words_per_second: float | None
    parameters: int | None
    bytes: int | None
    agreement: AgreementWithFirst | None


class CompareResponse(BaseModel):
    """All models saw the same words, as the first one splits the text."""

    words: int
    models: list[ComparedModel]


class ModelDescription(BaseModel):
    """A model that is served."""

    name: str
    types: list[str]
    parameters: int | None
    bytes: int


class BrowserModel(BaseModel):
    """A folder of `xlner export --web`: `import(folder + "tagger.js")` has it tag in the browser."""

    name: str
    folder: str
    bytes: int


class ModelList(BaseModel):
    """The first one is the default. The limits are those of the service: characters, texts, bytes, seconds."""

    models: list[ModelDescription]
    browser: list[BrowserModel]
    limits: dict[str, float]
    annotations: bool = Field(description="Whether corrections are saved.")


class Health(BaseModel):
    """Whether requests are answered, and how many wait."""

    status: str
    models: int
    waiting: int


class CorrectedEntity(_Strict):
    """An entity as a person sees it: `text[start:end]`, whole words of one line."""

    start: int
    end: int
    label: str


class FindRequest(_Strict):
    """A text whose saved corrections are asked for."""

    text: str
    offsets: OffsetsField = "characters"


class FoundSentence(BaseModel):
    """A line of the text; null entities where nothing is saved of it."""

    start: int
    end: int
    words: list[list[int]] = Field(description="Start and end of each.")
    entities: list[CorrectedEntity] | None


class FindResponse(BaseModel):
    """The lines that hold words, and the types that an entity may have."""

    version: str = Field(description="Of what is saved of this text.")
    types: list[str]
    sentences: list[FoundSentence]


class SaveRequest(_Strict):
    """A text with all of its entities; each line that holds words is a sentence, and gets a record."""

    text: str
    entities: list[CorrectedEntity]
    version: str | None = Field(None, description="That was found; 409 if another one is saved. null: replace any.")
    offsets: OffsetsField = "characters"


class SaveResponse(BaseModel):
    """How many records are new or replaced; those that were the same already are not counted."""

    saved: int
    version: str
