"""The client's side of the keys: who one is, and which station one trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.config.keys import ClientKey, read_client_key

if TYPE_CHECKING:
    from pathlib import Path

    import zmq as zeromq


def read_key(path: Path) -> ClientKey:
    """The file that ``inspector keys new`` made.

    Raises:
        ConfigError: it is missing, damaged or open to others.
    """
    return read_client_key(path)


def apply(socket: zeromq.Socket[bytes], key: ClientKey) -> None:
    """Make ``socket`` speak with this key, to the station of this key alone; before it connects."""
    socket.curve_secretkey = key.pair.secret.encode("ascii")
    socket.curve_publickey = key.pair.public.encode("ascii")
    socket.curve_serverkey = key.server_key.encode("ascii")
