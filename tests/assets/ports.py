"""Ports for stations under test."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST, LAST = 12_000, 60_999
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses now, outside the range from which the system numbers outgoing connections.

    Inside it, a client that tries again and again to reach a station not yet started can be given the station's own port
    for its end: it then is connected to itself, and the station finds its port in use.
    """
    low, high = (int(word) for word in RANGE.read_text().split()) if RANGE.exists() else (32_768, 60_999)
    ports = [port for port in range(FIRST, LAST + 1) if not low <= port <= high]
    for port in random.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port on {host} outside {low} to {high}")
