"""Files of a training: weights, and checkpoints that hold the complete state. Both are safetensors: plain numbers, nothing that runs code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

STATE = "state"
"""Key of the metadata that holds the numbers beside the tensors, as json."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands."""

    step: int
    """Steps done."""
    elapsed_s: float
    """Time spent in them and in what the first of them needed, over all runs."""
    recipe_hash: str
    """Of what may not change between a checkpoint and its resumption."""


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Writes tensors and text about them to a safetensors file; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        # Written here, not by the library, whose files only their owner may read: what trains and what compiles may be two users.
        with partial.open("wb") as file:
            file.write(save({name: tensor.detach().contiguous() for name, tensor in weights.items()}, metadata=dict(about)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be written: {error}") from None


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of a safetensors file.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 (no mapping, only keys)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: is no safetensors file, or a damaged one: {error}") from None


def load_model(model: nn.Module, path: Path) -> dict[str, str]:
    """Fills a model with the weights of a file; every tensor must fit.

    Returns:
        What the file says about itself (``recipe``, ``classes``, ``step``).

    Raises:
        DataError: the file is missing or damaged, or belongs to another architecture.
    """
    weights, about = load_weights(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        whose = f"it is of the recipe {about['recipe']!r}; " if "recipe" in about else ""
        told = whose + _misfit(model.state_dict(), weights)
        raise DataError(f"{path}: does not fit the recipe's network ({told}); name weights that were trained with this recipe") from None
    return about


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """In what two sets of tensors differ."""
    kinds = {
        "missing": [name for name in wanted if name not in given],
        "of another network": [name for name in given if name not in wanted],
        "of another shape": [name for name, tensor in wanted.items() if name in given and given[name].shape != tensor.shape],
    }
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
    return f"tensors: {counts}; the first is {next((name for names in kinds.values() for name in names), 'unknown')}"


def load_trained(model: nn.Module, path: Path, classes: Sequence[str]) -> None:
    """Fills a model with trained weights, which must be of the same classes in the same order.

    Raises:
        DataError: as :func:`load_model`, or they were trained for other classes.
    """
    trained = json.loads(load_model(model, path).get("classes", "null"))
    if trained is not None and tuple(trained) != tuple(classes):
        raise DataError(f"{path}: was trained for the classes {', '.join(trained)}, the recipe names {', '.join(classes)}")


def save_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes the complete state: weights, their moving average, the optimiser's, and the progress.

    Raises:
        DataError: the file cannot be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in values.items() if isinstance(value, torch.Tensor)}
    # The moving average shares frozen tensors with nothing, but safetensors refuses shared memory: each is written from a copy of its own.
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    state = {"step": progress.step, "elapsed_s": progress.elapsed_s, "recipe_hash": progress.recipe_hash}
    save_weights(path, copies, {STATE: json.dumps(state)})


def read_progress(path: Path) -> Progress:
    """Where the training of a checkpoint stands; the tensors are not read.

    Raises:
        DataError: the file is missing, damaged, or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _progress(dict(file.metadata() or {}))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: is no checkpoint that can be read ({str(error).splitlines()[0]}); train without --resume") from None


def _progress(about: Mapping[str, str]) -> Progress:
    """The progress in a checkpoint's metadata; KeyError or ValueError where there is none."""
    state = json.loads(about[STATE])
    return Progress(int(state["step"]), float(state["elapsed_s"]), str(state["recipe_hash"]))


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer) -> Progress:
    """Brings everything back to where :func:`save_checkpoint` left it.

    Raises:
        DataError: the file is missing, damaged, or belongs to another recipe.
    """
    tensors, about = load_weights(path)
    try:
        progress = _progress(about)
        model.load_state_dict(_under("model.", tensors))
        if average is not None:
            average.load_state_dict(_under("average.", tensors))
        _restore_optimiser(optimiser, _under("optimiser.", tensors))
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: is no checkpoint of this recipe ({reason}); train without --resume, or with the recipe it was made with") from None
    return progress


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts the optimiser's tensors back, each in the memory layout of its parameter: fused optimisers walk both side by side."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)] if int(index) < len(parameters) else None
        if parameter is None or (tensor.dim() > 0 and tensor.shape != parameter.shape):
            raise ValueError(f"its optimiser's tensor {name} fits no parameter")
        kept = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor.clone()
        state.setdefault(int(index), {})[key] = kept
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
