"""The house: who may look at whom. The table below is the plan."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

# A module imports from strictly lower floors, or from its own folder: rooms of one floor do not know each other.
# `recipe` fills `schema`; `data` asks it to choose from its table of formats, so data and models lie above it.
# `check_command` stands just below `cli`, which registers it: it looks at corpora, and asks a model for its labels.
FLOORS = {
    "errors": 0,
    "escaping": 0,
    "files": 1,
    "signals": 0,
    "strict_json": 0,
    "text": 0,
    "hub": 1,
    "labels": 1,
    "losses": 1,
    "recipe_keys": 1,
    "splitting": 1,
    "weights": 1,
    "decoding": 2,
    "compact_schema": 2,
    # A section of the recipe lies beside the formula that it feeds.
    "denoising": 2,
    "mixing": 2,
    "sections": 2,
    "schema": 3,
    "tagging_schema": 3,
    "recipe": 4,
    # Arrays in, arrays out: backends know neither data nor models.
    "backends": 5,
    "data": 5,
    "models": 5,
    "prediction": 6,
    "network_outputs": 7,
    # Compact students: their rows are windows of `data`, and what opens one is a backend of `prediction`.
    "students": 7,
    "comparison": 8,
    "evaluation": 8,
    "tagger": 8,
    "export": 9,
    "spacy_component": 9,
    "tagging": 9,
    "training": 9,
    # It reads and tags records as `tagging` does.
    "spacy_pipeline": 10,
    # It starts any job of training or tagging.
    "launcher": 10,
    # Parts of the command line, which `cli` puts together.
    "commands": 11,
    "cli": 12,
    "__main__": 13,
}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((REPOSITORY / "xlner").rglob("*.py"))}
# The package itself only names where its public names live; nothing is imported before one is used.
ROOMS = sorted(MODULES.keys() - {"xlner"})


def imported_names(module: str) -> set[str]:
    """Every module that a module imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {str(node.module)}
    return names


def own_imports(module: str) -> set[str]:
    return imported_names(module) & set(ROOMS)


def room(module: str) -> str:
    """The file or folder directly under xlner/ that a module belongs to."""
    return module.split(".")[1]


def closure(module: str) -> set[str]:
    """A module and all of ours that it needs, directly or through others."""
    reached, waiting = set(), {module}
    while waiting:
        current = waiting.pop()
        reached.add(current)
        waiting |= own_imports(current) - reached
    return reached


def test_every_room_has_a_floor():
    rooms = {room(module) for module in ROOMS}

    assert rooms == FLOORS.keys()


@pytest.mark.parametrize("module", ROOMS)
def test_a_module_imports_only_from_lower_floors_or_its_own_folder(module):
    home = room(module)

    upward = {name for name in own_imports(module) if room(name) != home and FLOORS[room(name)] >= FLOORS[home]}

    assert upward == set()


def test_there_is_no_circle_of_imports():
    graph = {module: own_imports(module) for module in ROOMS}

    order = list(TopologicalSorter(graph).static_order())

    assert len(order) == len(ROOMS)


@pytest.mark.parametrize("unneeded", ["xlner.training", "xlner.data.corpus", "xlner.data.storage"])
def test_the_tagger_needs_nothing_of_ours_that_only_training_needs(unneeded):
    needed = closure("xlner.tagger")

    assert not [module for module in needed if f"{module}.".startswith(f"{unneeded}.")]


@pytest.mark.parametrize("library", ["accelerate", "datasets", "pyarrow", "seqeval", "omegaconf"])
def test_the_tagger_needs_no_library_that_only_training_needs(library):
    needed = set().union(*(imported_names(module) for module in closure("xlner.tagger")))

    assert library not in {name.split(".")[0] for name in needed}


@pytest.mark.parametrize("module", [name for name in ROOMS if room(name) == "models"])
def test_a_model_reads_no_corpus_and_no_batch(module):
    needed = closure(module)

    assert not [name for name in needed if room(name) == "data"]


@pytest.mark.slow
def test_importing_the_package_loads_nothing_before_a_name_is_used():
    ask = "import sys, xlner; print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers'}))"
    ask += "; print([name for name in sys.modules if name.startswith('xlner.')])"

    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    assert answer.stdout.split("\n")[:2] == ["[]", "[]"]


@pytest.mark.slow
def test_the_public_names_are_there_and_no_others():
    ask = "import xlner; print(sorted(xlner.__all__)); [getattr(xlner, name) for name in ('load_recipe',)]"

    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    assert answer.stdout == "['Tagger', 'adapt_encoder', 'distill', 'load_recipe', 'load_tagger', 'train_teacher']\n"


@pytest.mark.parametrize("module", ROOMS)
def test_no_module_is_named_after_nothing_in_particular(module):
    assert module.split(".")[-1] not in {"utils", "util", "common", "helpers", "helper", "base", "misc", "core"}
