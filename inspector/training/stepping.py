"""What every training does around its steps: budget, log, checkpoints and a clean stop."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    import threading
    from pathlib import Path

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
LOG_STEPS = 20
"""Steps of which one line of the log is the mean."""
CHECKPOINT_S = 300.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one line of the log says: means over the steps since the last."""

    step: int
    epoch: float
    share_done: float
    """0..1 of the training."""
    elapsed_s: float
    step_s: float
    learning_rate: float
    """Of the head."""
    losses: dict[str, float]
    """By name; in the log each is an entry of its own."""

    @property
    def remaining_s(self) -> float:
        """Estimated time to the end."""
        return self.elapsed_s * (1 - self.share_done) / max(self.share_done, 1e-6)

    def line(self) -> dict[str, float]:
        """As the log has it."""
        values = asdict(self)
        losses: dict[str, float] = values.pop("losses")
        return values | losses


class Listener(Protocol):
    """Who is told how it goes."""

    def __call__(self, report: StepReport) -> None:
        """Takes one report."""


BatchT = TypeVar("BatchT")


class SteppedTraining(ABC, Generic[BatchT]):
    """A training as a row of steps.

    Args:
        total_steps: of the whole training.
        minutes: time budget; the training ends with it if its steps do not end before. None: steps alone.
        losses: names of what each step returns.
    """

    def __init__(self, total_steps: int, minutes: float | None, losses: tuple[str, ...]) -> None:
        self.total_steps = max(1, total_steps)
        self.budget_s = minutes * 60 if minutes is not None else None
        self.step = 0
        self.elapsed_s = 0.0
        self._losses = losses

    @abstractmethod
    def prepare(self, step: int) -> BatchT:
        """The batch of a step; in a thread of its own, one step ahead."""

    @abstractmethod
    def take_step(self, batch: BatchT) -> torch.Tensor:
        """One step, ``step`` counted up; its losses [n], without graph.

        Raises:
            DataError: a loss is not finite; the state is as before the step.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the checkpoint and the weights to evaluate."""

    @abstractmethod
    def place(self) -> tuple[float, float]:
        """Epoch, and the head's learning rate, after the last step."""

    @property
    def share_done(self) -> float:
        """0..1, by steps or by time, whichever is further."""
        return min(1.0, max(self.step_share, self.time_share))

    @property
    def step_share(self) -> float:
        """0..1, by steps; 1 after the last one alone."""
        return self.step / self.total_steps

    @property
    def preparation(self) -> str | None:
        """What ``run`` does before its next step, where that takes long; None: nothing."""
        return None

    @property
    def time_share(self) -> float:
        """Share of the time budget that is used up; 0 where there is none."""
        return self.elapsed_s / self.budget_s if self.budget_s else 0.0

    def run(self, folder: Path, stop: threading.Event, listener: Listener) -> bool:
        """Trains to the end or until ``stop`` is set; a checkpoint is written every five minutes and at the end either way.

        Args:
            folder: where checkpoint, weights and log go; it exists.
            stop: set it (from a signal handler, say) to end after the step at hand.
            listener: gets a report every ``LOG_STEPS`` steps.

        Returns:
            Whether the training is complete.

        Raises:
            DataError: a loss is not finite, a picture no longer decodes, or a file cannot be written.
        """
        saved = time.monotonic()
        sums, steps, spent = torch.zeros(len(self._losses)), 0, 0.0
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            following = pool.submit(self.prepare, self.step)
            while self.share_done < 1.0 and not stop.is_set():
                began = time.monotonic()
                batch = following.result()
                following = pool.submit(self.prepare, self.step + 1)
                sums += self.take_step(batch)
                took = time.monotonic() - began
                self.elapsed_s += took
                steps, spent = steps + 1, spent + took
                if steps == LOG_STEPS or self.share_done >= 1.0:
                    self._report(folder, sums / steps, spent / steps, listener)
                    sums, steps, spent = torch.zeros(len(self._losses)), 0, 0.0
                if time.monotonic() - saved > CHECKPOINT_S:
                    self.save(folder)
                    saved = time.monotonic()
        self.save(folder)
        return self.share_done >= 1.0

    def _report(self, folder: Path, losses: torch.Tensor, step_s: float, listener: Listener) -> None:
        """Appends to the log and tells the listener."""
        epoch, rate = self.place()
        values = dict(zip(self._losses, losses.tolist(), strict=True))
        report = StepReport(self.step, epoch, self.share_done, self.elapsed_s, step_s, rate, values)
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.line()) + "\n")
        listener(report)


def check_finite(loss: torch.Tensor, step: int, mend: str) -> None:
    """Whether a loss is a number.

    Raises:
        DataError: it is not; ``mend`` says what to do.
    """
    if not torch.isfinite(loss):
        raise DataError(f"step {step}: the loss is {float(loss.detach())}; {mend}")
