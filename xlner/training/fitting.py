"""The loop as a recipe asks for it: what all jobs hand over to `fit` alike."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import nn

from xlner.schema import AdaptRecipe, DistillRecipe, TeacherRecipe
from xlner.training.checkpoint import Progress
from xlner.training.loop import fit
from xlner.training.run_folder import RunFolder
from xlner.training.session import make_tracker
from xlner.training.task import Task


def fit_as_asked(
    accelerator: Accelerator,
    model: nn.Module,
    task: Task[Any],
    run: RunFolder,
    recipe: TeacherRecipe | DistillRecipe | AdaptRecipe,
    made_of: Mapping[str, str],
) -> Progress:
    """Train as a recipe says; arguments and errors as for `fit`."""
    return fit(
        accelerator,
        model,
        task,
        run,
        seed=recipe.seed,
        optimization=recipe.optimization,
        hardware=recipe.hardware,
        checkpoint=recipe.checkpoint,
        tracker=make_tracker(accelerator, recipe),
        made_of=made_of,
    )
