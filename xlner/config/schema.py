"""The schema of the recipes: teacher, distill, adapt, tag; frozen, each key with its default, meaning, unit and bounds."""

from dataclasses import dataclass

from xlner.config.sections import (
    BY_LANGUAGE,
    CertaintyRecipe,
    CheckpointRecipe,
    CompactRecipe,
    CorpusRecipe,
    HardwareRecipe,
    LabelsRecipe,
    MaskingRecipe,
    MixingRecipe,
    OptimizationRecipe,
    PairsRecipe,
    PoolingRecipe,
    ReductionRecipe,
    SimilarityRecipe,
    check_bounds,
    check_revision,
    key,
    section,
)
from xlner.errors import RecipeError

# The schema of recipes: frozen sections, each key with its default, meaning, unit and bounds.
#
# The defaults stand here and nowhere else. Bounds are checked when a section is made, before anything is loaded.


@dataclass(frozen=True)
class LossRecipe:
    """The losses of the student and their shares."""

    recognizer: str = key(
        "soft_cross_entropy",
        "against the teacher's probabilities: soft_cross_entropy, squared_error (summed over tags) or mean_squared_error",
    )
    temperature: float = key(1.0, "divides the logits of student and teacher", low=0.01, high=100)
    recognizer_weight: float = key(1.0, "share of the recognizer loss", low=0)
    similarity_weight: float = key(0.0, "share of the similarity loss; 0: no similarity task", low=0)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "loss")


@dataclass(frozen=True)
class WeightsRecipe:
    """How far each position's loss is trusted; named as in `train/objectives.py` and `train/mtmt.py`."""

    alpha: str = key("one", "trust in the recognizer, per word: squared_confidence or one")
    beta: str = key(
        "one",
        "trust in the similarity, per word pair: squared_margin, raised_margin or one",
    )
    gamma: str = key("one", "agreement of both teachers, per word pair: agreement, cosine_agreement or one")
    outputs: str = key(
        "teacher",
        "teacher: what the weights look at, each word and pair by itself; student: as in the post, they look at the "
        "student, are averaged over the batch and carry a gradient, and each tower has tag scores of its own",
        choices="teacher student",
    )

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "weights")


@dataclass(frozen=True)
class TeacherRecipe:
    """A teacher: labelled source language, recognizer and similarity in one network."""

    language: str = key("en", "source language: the folder of `data` that is read")
    data: str = key("data", "folder with LANGUAGE/{train,dev,test}.conll")
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/teacher-LANGUAGE")
    encoder: str = key("google-bert/bert-base-multilingual-cased", "encoder folder or hub name")
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    sharing: str = key(
        "joint",
        "joint: one encoder for both tasks; separate: an encoder for each, twice the time and memory",
        choices="joint separate",
    )
    similarity_weight: float = key(
        0.0,
        "share of the similarity loss beside the recognizer loss; 0: no similarity task, which transfers better; 1 for "
        "students that learn it, too (variant=calibrated)",
        low=0,
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    labels: LabelsRecipe = section(LabelsRecipe)
    pairs: PairsRecipe = section(PairsRecipe)
    similarity: SimilarityRecipe = section(SimilarityRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        check_revision(self.encoder_revision)
        if self.sharing == "separate" and not self.similarity_weight:
            raise RecipeError(
                "sharing=separate is an encoder for each of two tasks, and similarity_weight=0 leaves one; set "
                "similarity_weight=1, or leave sharing out"
            )


@dataclass(frozen=True)
class SourceRecipe:
    """Labelled source sentences among the target's, so that the student keeps what is certain."""

    share: float = key(0.0, "share of labelled source sentences in the training text; 0: none", low=0, high=0.9)
    language: str = key("auto", "folder of `data` that is read; auto: the teacher's language")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "source")


@dataclass(frozen=True)
class RoundsRecipe:
    """Rounds of self-training: the student becomes the next teacher."""

    count: int = key(1, "rounds at most; they stop when agreement no longer rises", low=1, high=100)
    denoising: str = key("same", "what is done to the soft labels from the second round on; same: as in the first")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "rounds")


@dataclass(frozen=True)
class DistillRecipe:
    """A student: unlabelled target text and a teacher's soft labels."""

    target: str = key("", "target language: the folder of `data` that is read")
    data: str = key("data", "folder with TARGET/train.txt or train.conll, and TARGET/test.conll where there is one")
    text: str = key("", "the unlabelled text itself: a file, or the folder of a data set; empty: that of `data`")
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/TARGET")
    teacher: str = key(
        "runs/teacher-en/model",
        "model folder or hub name of the teacher, or several, separated by commas; FILE.jsonl: annotations",
    )
    encoder: str = key(
        "teacher",
        "what the student starts from: an encoder folder or hub name; teacher: the first teacher's encoder as trained; "
        "pretrained: the encoder that this teacher itself started from",
    )
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    student: str = key(
        "encoder",
        "encoder: a network of subword pieces, as `encoder` says; transformer: the same with fewer layers and pieces; or "
        "a compact one of words and characters: bilstm (1.5 to 2.25 M parameters), cnn (at most 1.5 M), linear (hashed "
        "features, one matrix)",
        choices="encoder transformer bilstm cnn linear",
    )
    variant: str = key("pooled", "named set of losses and weights")
    setting: str = key("", "what result tables call this setting; empty: the keys in which it differs from others")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    soft_labels: str = key("auto", "folder of stored soft labels; auto: under runs/soft-labels, found by content")
    selection: str = key(
        "last",
        "which student is kept: last; agreement: the closest to its soft labels on held-out text; source: the best on "
        "the teacher's language's dev set; score: by the mean of both; target: by labels of the target's dev set",
        choices="last agreement source score target",
    )
    holdout_ratio: float = key(
        0.05, "share of the target text that is kept out of training, to measure agreement", low=0, high=0.5
    )
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    labels: LabelsRecipe = section(LabelsRecipe)
    pairs: PairsRecipe = section(PairsRecipe)
    loss: LossRecipe = section(LossRecipe)
    weights: WeightsRecipe = section(WeightsRecipe)
    denoising: str = key(
        "pooling", "what is done to the soft labels, in this order: steps separated by commas, or none"
    )
    pooling: PoolingRecipe = section(PoolingRecipe)
    certainty: CertaintyRecipe = section(CertaintyRecipe)
    compact: CompactRecipe = section(CompactRecipe)
    reduction: ReductionRecipe = section(ReductionRecipe)
    mixing: MixingRecipe = section(MixingRecipe)
    source: SourceRecipe = section(SourceRecipe)
    rounds: RoundsRecipe = section(RoundsRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        if not self.target:
            raise RecipeError("target is empty; which language? as in target=de")
        self._check_teachers()

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers, in the order of the recipe."""
        return tuple([name.strip() for name in self.teacher.split(",")])

    @property
    def model_teachers(self) -> tuple[str, ...]:
        """The teachers that are models, by folder or hub name; the others are annotation files."""
        return tuple([name for name in self.teachers if not is_annotation_file(name)])

    @property
    def is_compact(self) -> bool:
        """Whether the student reads words and characters instead of subword pieces."""
        return self.student not in ("encoder", "transformer")

    def _check_teachers(self) -> None:
        teachers = self.teachers
        if "" in teachers or len(set(teachers)) < len(teachers):
            raise RecipeError(f"teacher={self.teacher}: expected one teacher or several different ones, as in A,B")
        if self.mixing.numbers and len(self.mixing.numbers) != len(teachers):
            raise RecipeError(
                f"mixing.weights={self.mixing.weights} are {len(self.mixing.numbers)}, the teachers are "
                f"{len(teachers)}: {', '.join(teachers)}; expected a number for each"
            )
        files = [name for name in teachers if is_annotation_file(name)]
        if self.mixing.weights == BY_LANGUAGE and files:
            raise RecipeError(f"mixing.weights=language weighs models by their language; {files[0]} has none")
        if self.mixing.weights == BY_LANGUAGE and len(teachers) == 1:
            raise RecipeError("mixing.weights=language needs teachers of two languages or more, as in teacher=A,B")
        check_revision(self.encoder_revision)
        follows_teacher = self.encoder in ("teacher", "pretrained")
        if self.encoder_revision and follows_teacher:
            raise RecipeError(
                f"encoder_revision={self.encoder_revision} is that of an encoder of the hub, and the student starts from "
                "its teacher's; leave it out, or give encoder= a hub name"
            )
        if self.weights.outputs == "student":
            self._check_batch_weights()
        if self.is_compact:
            self._check_compact()
        elif not self.model_teachers and follows_teacher:
            raise RecipeError(
                f"teacher={self.teacher}: annotations are no encoder that a student could start from; give encoder="
            )

    def _check_batch_weights(self) -> None:
        """What a student with weights of its own and two layers of tag scores cannot do."""
        found = {
            "optimization.batch_pieces": self.optimization.batch_pieces != OptimizationRecipe().batch_pieces,
            "rounds.count": self.rounds.count > 1,
        }
        if names := [name for name, asked in found.items() if asked]:
            raise RecipeError(
                f"weights.outputs=student (variant=blog) has weights of the whole batch, and "
                f"no similarity head that could teach a next round; leave out {', '.join(names)}, or set weights.outputs=teacher"
            )

    def _check_compact(self) -> None:
        """What a student without subword pieces and without a second tower cannot do."""
        found = {
            "encoder": self.encoder != "teacher",
            "loss.similarity_weight": self.loss.similarity_weight > 0,
            "weights.gamma": self.weights.gamma != "one",
            "weights.outputs": self.weights.outputs != "teacher",
            "optimization.freeze": self.optimization.freeze != "none",
            "optimization.batch_pieces": self.optimization.batch_pieces != OptimizationRecipe().batch_pieces,
            "rounds.count": self.rounds.count > 1,
        }
        if names := [name for name, asked in found.items() if asked]:
            raise RecipeError(
                f"student={self.student} learns from soft labels of words, in one round, and starts from no encoder; "
                f"leave out {', '.join(names)}, or take variant=pooled or tsl"
            )
        if self.compact.vectors == "teacher" and self.student != "linear" and not self.model_teachers:
            raise RecipeError(
                f"teacher={self.teacher}: annotations have no word vectors; set compact.vectors=random or a file"
            )


def is_annotation_file(teacher: str) -> bool:
    """Whether a teacher is a file of annotations rather than a model."""
    return teacher.endswith(".jsonl")


@dataclass(frozen=True)
class VocabularyRecipe:
    """Pieces that the encoder gets in addition, learnt from the target text."""

    new_pieces: int = key(0, "pieces to add at most; 0: the vocabulary stays as it is", low=0, high=1_000_000)
    min_frequency: int = key(5, "a piece that is added occurs at least so often in the text", low=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "vocabulary")


# Longer and with an even hand: the whole encoder learns, and its stored head has learnt before.
_ADAPTATION = OptimizationRecipe(learning_rate=1e-4, head_learning_rate=5e-4, warmup_ratio=0.05)


@dataclass(frozen=True)
class AdaptRecipe:
    """An encoder that goes on reading: unlabelled text of a target language, with pieces hidden."""

    target: str = key("", "target language: the folder of `data` that is read")
    data: str = key("data", "folder with TARGET/train.txt or train.conll")
    text: str = key("", "the unlabelled text itself: a file, or the folder of a data set; empty: that of `data`")
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/encoder-TARGET")
    encoder: str = key("google-bert/bert-base-multilingual-cased", "encoder folder or hub name; of a tagger, its body")
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    parallel: str = key("", "file of translations, SOURCE<TAB>TARGET a line, each pair read as one input; empty: none")
    max_pairs: int = key(0, "read only so many translations; 0: all", low=0)
    other_text: str = key("", "text of other languages, mixed in so that they are not forgotten; empty: none")
    other_share: float = key(0.3, "share of the other text among all sentences of an epoch", low=0.01, high=0.99)
    selection: str = key("best", "which encoder is kept: best on the held-out text, or last", choices="best last")
    holdout_ratio: float = key(
        0.05, "share of the target text that is kept out of training, to measure the loss", low=0, high=0.5
    )
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    masking: MaskingRecipe = section(MaskingRecipe)
    vocabulary: VocabularyRecipe = section(VocabularyRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe, _ADAPTATION)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        check_revision(self.encoder_revision)
        if not self.target:
            raise RecipeError("target is empty; which language? as in target=de")
        if self.selection == "best" and not self.holdout_ratio:
            raise RecipeError("selection=best needs text that is held out; raise holdout_ratio, or set selection=last")


# The schema of `tag_corpus.py`: what is tagged with what, and how the work is cut.


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
