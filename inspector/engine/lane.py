"""One thread that runs an engine's images in the order in which they were submitted."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from inspector.contract.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Lane(Generic[Argument, Result]):
    """A function and the one thread that calls it, argument by argument, until closed.

    The thread is a daemon thread: native code that never returns shall not keep the process from ending.

    Args:
        name: the thread's name.
        function: what is done with each argument; what it raises goes to the one who waits for the result.
    """

    def __init__(self, name: str, function: Callable[[Argument], Result]) -> None:
        self._function = function
        self._waiting: queue.SimpleQueue[tuple[Argument, Future[Result]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closed = False
        self._thread.start()

    def submit(self, argument: Argument) -> Future[Result]:
        """The result to come of one call.

        Raises:
            EngineError: the lane is closed.
        """
        if self._closed:
            raise EngineError("the engine is closed")
        future: Future[Result] = Future()
        self._waiting.put((argument, future))
        return future

    def close(self, deadline_s: float) -> bool:
        """Finish what was submitted; True: the thread ended within ``deadline_s`` seconds. Idempotent."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        """The thread."""
        while (item := self._waiting.get()) is not None:
            argument, future = item
            try:
                future.set_result(self._function(argument))
            except BaseException as error:  # noqa: BLE001 - raised by the one who waits for the result
                future.set_exception(error)
            del item, argument, future  # a result belongs to the one who waits for it, not to this frame
