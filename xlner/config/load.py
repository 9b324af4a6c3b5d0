"""Recipes: every key of a run with its type, default, unit and bound, and how files and `key=value` fill them.

Values are text until the schema gives them a type, in YAML files as on the command line: `target=no` is Norwegian,
`run=007` stays `007`. A recipe is plain data: no anchors, no interpolation, no environment, no code.
Later wins: defaults, then the variant's settings, then the files, then the command line.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xlner.config.schema import AdaptRecipe, DistillRecipe, TagRecipe, TeacherRecipe, refuse_secret
from xlner.errors import RecipeError, has_half_characters
from xlner.files import shipped
from xlner.tags import LabelMap

Recipe = TeacherRecipe | DistillRecipe | AdaptRecipe
AnyRecipe = Recipe | TagRecipe
Schema = type[TeacherRecipe] | type[DistillRecipe] | type[AdaptRecipe] | type[TagRecipe]
Choice = TypeVar("Choice")
# What a key may be given in Python; a list is what stands between commas on the command line.
Scalar = str | float | os.PathLike[str]
Value = Scalar | Sequence[Scalar] | Mapping[str, Scalar | Sequence[Scalar]]
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Za-z]{2,8})?")

# Adam at one rate from the first step to the last: no warm-up, no decay of weights or rate, no clipping.
_PLAIN_ADAM = {"weight_decay": "0", "warmup_ratio": "0", "decay": "constant", "clip_norm": "0"}
# A variant is a set of defaults; `docs/method.md` gives the formulas behind the names.
VARIANTS: dict[str, dict[str, Any]] = {
    "pooled": {},
    "calibrated": {
        "denoising": "none",
        "loss": {"similarity_weight": "1"},
        "weights": {"alpha": "squared_confidence", "beta": "squared_margin", "gamma": "agreement"},
    },
    "tsl": {"denoising": "none", "loss": {"recognizer": "mean_squared_error"}},
    "authors": {
        "teacher": "runs/teacher-authors/model",
        "encoder": "pretrained",
        "denoising": "none",
        "loss": {"recognizer": "squared_error", "similarity_weight": "0.5"},
        "weights": {"alpha": "squared_confidence", "beta": "raised_margin", "gamma": "cosine_agreement"},
        "optimization": {
            "batch_size": "32",
            "learning_rate": "5e-6",
            "head_learning_rate": "5e-9",
            **_PLAIN_ADAM,
        },
    },
    "blog": {
        "teacher": "runs/teacher-blog/model",
        "encoder": "pretrained",
        "denoising": "none",
        # The recognizer's share is that of both towers: the three terms count alike.
        "loss": {"recognizer_weight": "2", "similarity_weight": "1"},
        "weights": {
            "alpha": "squared_confidence",
            "beta": "squared_margin",
            "gamma": "cosine_agreement",
            "outputs": "student",
        },
        "optimization": {"learning_rate": "5e-5", "head_learning_rate": "5e-5"},
    },
}
_NO_HELP = "it did not help on a real encoder and went after version 0.2.0 (docs/results.md)"
# Keys and sections that earlier versions had, and what to do now.
GONE = dict.fromkeys(
    ("rdrop_weight", "masked_weight", "hidden_weight", "ema", "neighbours", "prototypes", "discriminator"), _NO_HELP
) | {"certainty": _NO_HELP, "rounds": _NO_HELP, "tensorboard": "give trackers=tensorboard"}
# Variants that stand for what others published, and so take the teacher that these have.
PUBLISHED = ("authors", "blog")
# A small student has more to learn anew, a compact one all of it, and so is trained longer; each kind's defaults.
STUDENTS: dict[str, dict[str, Any]] = {
    "encoder": {},
    "transformer": {"optimization": {"epochs": "6", "learning_rate": "1e-4"}},
    "bilstm": {"optimization": {"epochs": "12", "head_learning_rate": "2e-3", "weight_decay": "0.01"}},
    "linear": {
        "compact": {"dropout": "0.2"},
        "optimization": {"epochs": "10", "head_learning_rate": "2e-2", "weight_decay": "0"},
    },
}
# Which schema a launch script fills, and which key names the recipe file.
KINDS: dict[str, tuple[Schema, str]] = {
    "teacher": (TeacherRecipe, "recipe"),
    "distill": (DistillRecipe, "target"),
    "adapt": (AdaptRecipe, "target"),
    "tag": (TagRecipe, "recipe"),
}


@overload
def load_recipe(
    kind: Literal["teacher"], arguments: Sequence[str], recipes: Path | str | None = None
) -> TeacherRecipe: ...
@overload
def load_recipe(
    kind: Literal["distill"], arguments: Sequence[str], recipes: Path | str | None = None
) -> DistillRecipe: ...
@overload
def load_recipe(kind: Literal["adapt"], arguments: Sequence[str], recipes: Path | str | None = None) -> AdaptRecipe: ...
@overload
def load_recipe(kind: Literal["tag"], arguments: Sequence[str], recipes: Path | str | None = None) -> TagRecipe: ...
@overload
def load_recipe(kind: str, arguments: Sequence[str], recipes: Path | str | None = None) -> AnyRecipe: ...
def load_recipe(kind: str, arguments: Sequence[str], recipes: Path | str | None = None) -> AnyRecipe:
    """The recipe that a command line asks for.

    >>> load_recipe("distill", ["target=de", "optimization.epochs=5"]).optimization.epochs
    5

    Args:
        kind: A key of `KINDS`; also the folder of the recipe files within `recipes`.
        arguments: `key=value` texts. `recipe=NAME` (teacher) or `target=NAME` (all others) names a file of that
            folder, or is a path to one; a target language without a file of its own takes the defaults. With
            `target=`, `recipe=NAME` or a path adds the settings of a further file, but not its target.
        recipes: The folder that holds `teacher/`, `distill/` and `adapt/`; None: `recipes` here, then those that
            come with xlner.

    Raises:
        RecipeError: For an unknown key or value, one out of bounds, or a secret; the message says what would be right.
    """
    return _load(kind, arguments, recipes, "command line")


def recipe_of_keys(kind: str, keys: Mapping[str, Value]) -> AnyRecipe:
    """The recipe that keyword arguments ask for: `target="de", optimization={"epochs": 5}`.

    Args:
        kind: A key of `KINDS`.
        keys: Keys of the recipe, sections as mappings; they mean what they mean on the command line.

    Raises:
        RecipeError: As `load_recipe`, and for a value that is neither text nor a number.
    """
    return _load(kind, _as_arguments(keys), None, "keyword arguments")


def _as_arguments(keys: Mapping[str, Value]) -> list[str]:
    """Keyword arguments as `key=value` texts."""
    arguments: list[str] = []
    for name, value in keys.items():
        if isinstance(value, Mapping):
            arguments += [f"{name}.{argument}" for argument in _as_arguments(value)]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            arguments.append(f"{name}={','.join(_as_text(name, one) for one in value)}")
        else:
            arguments.append(f"{name}={_as_text(name, value)}")
    return arguments


def _as_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Real):
        return str(value)
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    hint = "; leave the key out for its default" if value is None else ""
    raise RecipeError(f"{name} is {value!r}; expected text, a number, True or False, or a list of these{hint}")


def _load(kind: str, arguments: Sequence[str], recipes: Path | str | None, origin: str) -> AnyRecipe:
    """As `load_recipe`; `origin` is what messages call the arguments."""
    schema, selector = choose(KINDS, kind, "kind of recipe")
    folders = [Path("recipes"), shipped("recipes")] if recipes is None else [Path(recipes)]
    for argument in arguments:
        refuse_secret(origin, argument)  # before a message shows what was given
    given = _parse_arguments(arguments)
    selected = given.pop(selector, None)
    if isinstance(selected, dict):
        raise RecipeError(f"{selector} is a name or a path, without further keys")
    layers: list[tuple[str, dict[str, Any]]] = []
    if selected is not None:
        path = _recipe_file(kind, selector, selected, folders)
        layers.append((str(path), _read_yaml(path)) if path else (origin, {"target": selected}))
    further = str(given.pop("recipe")) if selector == "target" and "recipe" in given else None
    if further is not None and (path := _recipe_file(kind, "recipe", further, folders)):
        # Whoever names a target means that one, whatever the further file was written for.
        layers.append((str(path), {name: value for name, value in _read_yaml(path).items() if name != "target"}))
    layers.append((origin, given))
    if schema is DistillRecipe:
        variant = next((layer["variant"] for _, layer in reversed(layers) if "variant" in layer), "pooled")
        layers.insert(0, (f"variant {variant}", choose(VARIANTS, str(variant), "variant")))
        student = next((layer["student"] for _, layer in reversed(layers) if "student" in layer), "encoder")
        layers.insert(1, (f"student {student}", choose(STUDENTS, str(student), "student")))
    return _build(schema, layers)


def choose(table: Mapping[str, Choice], key: str, what: str) -> Choice:
    """The entry of a table of choices, or an error that lists them.

    Raises:
        RecipeError: If the table has no such key.
    """
    if key in table:
        return table[key]
    near = get_close_matches(key, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RecipeError(f"unknown {what} {key!r}; known: {', '.join(table)}{hint}")


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included, that `load_recipe` reads back."""
    return str(OmegaConf.to_yaml(OmegaConf.structured(recipe)))


def explain(kind: str) -> str:
    """The help of a training command: how to call it, and every key with its default and meaning."""
    schema, selector = KINDS[kind]
    command = {"teacher": "train-teacher", "distill": "distill", "adapt": "adapt", "tag": "tag-corpus"}[kind]
    example = {
        "teacher": "recipe=en run=first seed=1 optimization.epochs=5",
        "distill": "target=de run=first seed=1 optimization.epochs=5",
        "adapt": "target=de run=first seed=1 optimization.epochs=5",
        "tag": "model=runs/de/model input=corpus output=tagged",
    }[kind]
    selection = "" if kind == "tag" else f" {selector}=NAME|FILE"
    rows = _rows(schema, {}, "")
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"xlner {command}{selection} [key=value ...]",
        f"for example: xlner {command} {example}",
        f"by several processes: accelerate launch --multi_gpu --num_processes 2 -m xlner {command} {example}",
        "",
        *(f"  {name:<{width}}  {meaning} [{default}]" for name, default, meaning in rows),
    ]
    if kind == "distill":
        lines += ["", f"variants: {', '.join(VARIANTS)}"]
    return "\n".join(lines)


def _rows(schema: type, defaults: Mapping[str, Any], prefix: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each key; `defaults` are those of a section that has other ones than its schema."""
    rows: list[tuple[str, str, str]] = []
    for spec in fields(schema):
        if is_dataclass(spec.type):
            make: Any = spec.default_factory
            section = make()
            rows += _rows(type(section), section.__dict__, f"{prefix}{spec.name}.")
        else:
            value = defaults.get(spec.name, spec.default)
            default = str(value).lower() if isinstance(value, bool) else str(value)
            rows.append((f"{prefix}{spec.name}", default or "empty", spec.metadata["help"]))
    return rows


def _build(schema: Schema, layers: list[tuple[str, dict[str, Any]]]) -> AnyRecipe:
    config = OmegaConf.structured(schema)
    OmegaConf.set_readonly(config, False)
    for origin, layer in layers:
        _refuse_odd_text(origin, layer)
        _refuse_bare_sections(origin, schema, layer)
        try:
            config = OmegaConf.merge(config, layer)
        except OmegaConfBaseException as problem:
            message = str(problem.msg or problem).strip().splitlines()[0]
            key = f" (key: {problem.full_key})" if problem.full_key else ""
            gone = next((GONE[part] for part in str(problem.full_key).split(".") if part in GONE), "")
            raise RecipeError(f"{origin}: {message}{key}; {gone or '--help lists the keys'}") from problem
    recipe = OmegaConf.to_object(config)
    assert isinstance(recipe, AnyRecipe)
    if not isinstance(recipe, AdaptRecipe | TagRecipe):
        LabelMap.parse(recipe.labels.map)  # fails before anything is loaded
    return recipe


def _parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """`a.b=text` to nested dicts of text; a key given twice is refused rather than the last one taken."""
    tree: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = name.lstrip("-")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise RecipeError(
                f"found {argument!r}; expected key=value, as in optimization.epochs=5 (--help lists the keys)"
            )
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{name}: {parent} is given a value and keys of its own")
        if leaf in node:
            raise RecipeError(f"{name} is given twice")
        node[leaf] = value
    return tree


def _recipe_file(kind: str, selector: str, selected: str, folders: Sequence[Path]) -> Path | None:
    if selected.endswith((".yaml", ".yml")) or "/" in selected:
        path = Path(selected)
        if not os.path.isfile(path):  # unlike `Path.is_file`, False for a name that is too long
            raise RecipeError(f"{selector}={selected}: no such file")
        return path
    candidates = [folder / kind / f"{selected}.yaml" for folder in folders]
    if found := next((one for one in candidates if os.path.isfile(one)), None):
        return found
    if selector == "target" and _LANGUAGE.fullmatch(selected):
        return None  # any language works with the defaults
    known = sorted({one.stem for folder in folders for one in (folder / kind).glob("*.yaml")})
    near = get_close_matches(selected, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if kind == "teacher" and _LANGUAGE.fullmatch(selected) and known:
        plain = next((name for name in known if _LANGUAGE.fullmatch(name)), known[0])
        hint += f"; for a teacher of another language give it to one of these: recipe={plain} language={selected}"
    where = "that folder" if len(folders) == 1 else "these folders"
    raise RecipeError(
        f"no recipe at {' or '.join(map(str, candidates))}; recipes in {where}: {', '.join(known) or 'none'}{hint}"
    )


class _TextLoader(yaml.BaseLoader):
    """YAML in which every scalar stays text, and a key twice in one mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(name for name, number in counts.items() if number > 1)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        refuse_secret(str(path), text)
        # Aliases could blow a small file up to any size; a recipe has no need of them.
        if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text)):
            raise RecipeError(f"{path}: found an anchor or alias (& or *); a recipe states each value where it stands")
        content = yaml.load(text, Loader=_TextLoader)
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(f"{path}: cannot be read: {problem}") from problem
    except (yaml.YAMLError, RecursionError) as problem:
        raise RecipeError(f"{path}: no valid YAML: {' '.join(str(problem).split())}") from problem
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def _refuse_odd_text(origin: str, layer: Mapping[str, Any]) -> None:
    """Refuse what would not stay the text it is: OmegaConf looks up `${...}`, and takes `???` for not given."""
    for name, value in layer.items():
        if isinstance(value, Mapping):
            _refuse_odd_text(origin, value)
        elif "${" in str(value) or value == "???":
            raise RecipeError(
                f"{origin}: {name} holds {value!r}; recipes take plain values, no variables or environment"
            )
        elif has_half_characters(str(value)):
            # Python's stand-ins for undecodable bytes of a command line; no file could hold them.
            raise RecipeError(f"{origin}: {name} holds {str(value)!a}, which is not UTF-8; rename what it names")


def _refuse_bare_sections(origin: str, schema: type, layer: Mapping[str, Any]) -> None:
    for spec in fields(schema):
        if is_dataclass(spec.type) and not isinstance(layer.get(spec.name, {}), Mapping):
            example = f"{spec.name}.{fields(spec.type)[0].name}=..."
            raise RecipeError(f"{origin}: {spec.name} is a section; give its keys, as in {example}")
