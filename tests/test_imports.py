"""The house: who may look at whom. Three rules, and what importing must not cost."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((REPOSITORY / "xlner").rglob("*.py"))}
# The package itself only names where its public names live; nothing is imported before one is used.
ROOMS = sorted(MODULES.keys() - {"xlner"})


def imported_names(module: str, *, at_once: bool = False) -> set[str]:
    """Every module that a module imports; `at_once` leaves out what its functions import when they are called."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = set()
    for node in tree.body if at_once else ast.walk(tree):
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


def modules_of(*rooms: str) -> list[str]:
    found = [name for name in ROOMS if room(name) in rooms]
    assert found, f"no module in {', '.join(rooms)}"
    return found


# Rule 1: the tagger needs no training library.
@pytest.mark.parametrize("library", ["accelerate", "datasets", "pyarrow", "seqeval", "omegaconf"])
def test_the_tagger_needs_no_library_that_only_training_needs(library):
    needed = set().union(*(imported_names(module) for module in closure("xlner.tagger")))

    assert library not in {name.split(".")[0] for name in needed}


@pytest.mark.parametrize("unneeded", ["corpora", "soft_labels", "train", "jobs", "evaluate"])
def test_the_tagger_needs_nothing_of_ours_that_only_training_needs(unneeded):
    needed = closure("xlner.tagger") - {"xlner"}

    assert not [module for module in needed if room(module) == unneeded]


def test_the_tagger_reaches_no_torch_before_a_model_asks_for_it():
    ask = "import sys, xlner.tagger; print(sorted({'torch', 'transformers'} & sys.modules.keys()))"

    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"


# Rule 2: networks know no corpora, corpora no networks, and what trains a student no teacher.
@pytest.mark.parametrize("module", modules_of("models"))
def test_a_network_knows_no_corpus_and_no_training(module):
    needed = closure(module) - {"xlner"}

    assert not [name for name in needed if room(name) in {"corpora", "soft_labels", "train", "jobs"}]


@pytest.mark.parametrize("module", modules_of("corpora"))
def test_a_corpus_knows_no_network(module):
    needed = closure(module) - {"xlner"}

    assert not [name for name in needed if room(name) in {"models", "network_outputs", "soft_labels", "train", "jobs"}]
    assert "torch" not in imported_names(module)


@pytest.mark.parametrize("module", modules_of("train"))
def test_what_trains_a_student_knows_soft_labels_but_not_how_they_are_made(module):
    needed = closure(module) - {"xlner"}

    assert {name for name in needed if room(name) == "soft_labels"} <= {"xlner.soft_labels", "xlner.soft_labels.store"}
    assert not [name for name in needed if room(name) == "jobs"]


@pytest.mark.parametrize("module", modules_of("soft_labels"))
def test_soft_labels_know_no_student(module):
    needed = closure(module) - {"xlner"}

    assert not [name for name in needed if room(name) in {"jobs", "train"}]


@pytest.mark.parametrize("module", [name for name in ROOMS if room(name) != "lint"])
def test_only_the_command_looks_at_what_is_wrong_with_corpora(module):
    names = imported_names(module, at_once=True)

    assert not [name for name in names & set(ROOMS) if room(name) == "lint"]


# Rule 3: no circles; a file name occurs once.
def test_there_is_no_circle_of_imports():
    graph = {module: own_imports(module) for module in ROOMS}

    order = list(TopologicalSorter(graph).static_order())

    assert len(order) == len(ROOMS)


def test_a_file_name_occurs_once():
    counts = Counter(path.name for path in MODULES.values() if path.name not in {"__init__.py", "__main__.py"})

    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("module", ROOMS)
def test_no_module_is_named_after_nothing_in_particular(module):
    assert module.split(".")[-1] not in {"utils", "util", "common", "helpers", "helper", "base", "misc", "core"}


def test_importing_the_package_loads_nothing_before_a_name_is_used():
    ask = "import sys, xlner; print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers'}))"
    ask += "; print([name for name in sys.modules if name.startswith('xlner.')])"

    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    assert answer.stdout.split("\n")[:2] == ["[]", "[]"]
