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
    from collections.abc import Mapping
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
    """Time spent in them, over all runs."""
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
    except RuntimeError as error:
        told = str(error).splitlines()
        raise DataError(f"{path}: does not fit the recipe's network: {' '.join(line.strip() for line in told[1:3])} ...") from None
    return about


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


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer) -> Progress:
    """Brings everything back to where :func:`save_checkpoint` left it.

    Raises:
        DataError: the file is missing, damaged, or belongs to another recipe.
    """
    tensors, about = load_weights(path)
    try:
        state = json.loads(about[STATE])
        progress = Progress(int(state["step"]), float(state["elapsed_s"]), str(state["recipe_hash"]))
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
