"""From frames to messages."""

from __future__ import annotations

import msgspec

from inspector.client.decisions import Notice, NoticeKind
from inspector.contract import wire
from inspector.contract.requests import VERSION, Reply, decode_reply


def read_message(frames: list[bytes]) -> wire.Message | Notice:
    """What the publisher sent: topic and JSON; a notice where it cannot be read."""
    try:
        message: wire.Message = wire.decode(frames[-1])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        station, _, stream = frames[0].decode("utf-8", "replace").partition("/")
        return Notice(NoticeKind.UNREADABLE, station, stream, f"a message cannot be read: {error}")
    if message.v != wire.VERSION:
        detail = f"a message of version {message.v}; this program reads version {wire.VERSION}"
        return Notice(NoticeKind.UNREADABLE, message.station, message.stream, detail)
    return message


def read_reply(frames: list[bytes]) -> Reply | Notice:
    """What the request socket answered; a notice where it cannot be read."""
    try:
        reply: Reply = decode_reply(frames[-1])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Notice(NoticeKind.UNREADABLE, "", "", f"an answer cannot be read: {error}")
    if reply.v != VERSION:
        return Notice(NoticeKind.UNREADABLE, "", "", f"an answer of version {reply.v}; this program reads version {VERSION}")
    return reply
