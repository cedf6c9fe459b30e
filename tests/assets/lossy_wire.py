"""A wire between publisher and controller that loses what it is told to lose."""

from __future__ import annotations

import random
import threading

import zmq


class Lossy:
    """Loses some of what goes through: a share of it, the next few messages with the heartbeats between, or everything while ``cut``."""

    def __init__(self, port: int, loss: float) -> None:
        self.cut = False
        self.lost = self.to_lose = 0
        self._context = zmq.Context()
        self._in, self._out = self._context.socket(zmq.SUB), self._context.socket(zmq.PUB)
        self._in.setsockopt(zmq.SUBSCRIBE, b"")
        self._in.setsockopt(zmq.RECONNECT_IVL, 20)
        self._in.connect(f"tcp://127.0.0.1:{port}")
        self.endpoint = f"tcp://127.0.0.1:{self._out.bind_to_random_port('tcp://127.0.0.1')}"
        self._loss, self._random, self._ended = loss, random.Random(3), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            if not self._in.poll(20):
                continue
            frames = self._in.recv_multipart()
            numbered = b'"type":"heartbeat"' not in frames[1]
            if self.cut or self.to_lose > 0 or (numbered and self._random.random() < self._loss):
                self.lost += numbered
                self.to_lose = max(0, self.to_lose - numbered)
                continue
            self._out.send_multipart(frames)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._in.close(0)
        self._out.close(0)
        self._context.term()
