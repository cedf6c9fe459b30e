"""The simulated camera's nodes and faults: the one table from which its XML, its C++ registers and its page in the docs come.

Only the standard library is imported here and in ``generate``: the package's build runs both before anything is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Literal

Kind = Literal["integer", "float", "boolean", "enumeration", "command"]
Access = Literal["RW", "RO", "WO"]

REGISTER_BASE = 0x1000
"""Address of the first node's register; each takes 8 bytes: a signed integer or a double, little-endian."""
STRING_BASE = 0x100
STRING_BYTES = 64
STRINGS = ("DeviceVendorName", "DeviceModelName", "DeviceSerialNumber", "DeviceFirmwareVersion")
CHUNKS = ("ChunkFrameID", "ChunkTimestamp", "ChunkEncoderValue", "ChunkLineStatusAll", "ChunkCounterValue")
"""Chunk nodes, 8 bytes each; a chunk's id is its position counted from 1."""


class Fault(IntFlag):
    """What may happen: the trigger log carries these bits, the call log the names of those in ``CALL_FAULTS``."""

    DROP = 1 << 0
    """The image is lost on its way: a gap in the frame ids."""
    INCOMPLETE = 1 << 1
    """The second half of the image is missing; the buffer says so."""
    STALL = 1 << 2
    """Nothing is delivered for a time, registers answer; frame ids go on."""
    LOST = 1 << 3
    """The device is gone for a time; it must be opened again."""
    LATE = 1 << 4
    """Delivered late; the frames behind it wait for it."""
    REORDER = 1 << 5
    """Delivered late; the frames behind it overtake it."""
    DUPLICATE = 1 << 6
    """Carries the frame id of the frame before it."""
    REPEAT = 1 << 7
    """Delivered twice."""
    WRAP = 1 << 8
    """The 16-bit frame id wraps from 65535 to 1 with this frame."""
    RESET = 1 << 9
    """The frame id starts again at 1 with this frame."""
    BLACK = 1 << 10
    SATURATED = 1 << 11
    FROZEN = 1 << 12
    """Shows the image of the frame before it."""
    CRASH = 1 << 13
    """The producer dies by SIGSEGV."""
    HANG = 1 << 14
    """Calls into the producer do not return."""
    ABSENT = 1 << 15
    """No producer was acquiring when the trigger passed (never asked for: it happens)."""
    UNDERRUN = 1 << 16
    """No buffer was queued (never asked for: it happens)."""
    LOST_SILENT = 1 << 17
    """No frame from here on, registers answer; only opening it again helps."""
    EVENT_ERROR = 1 << 18
    """The next wait for a frame ends with an error."""
    INCOMPLETE_ALL = 1 << 19
    """As INCOMPLETE, every frame for a time."""
    TIMESTAMP_JUMP = 1 << 20
    """The camera's clock is set forward, and stays so."""
    TIMESTAMP_BACKWARDS = 1 << 21
    """The camera's clock is set back, and stays so."""
    TIMESTAMP_ABSENT = 1 << 22
    """The buffer has no timestamp."""
    CHUNK_MISSING = 1 << 23
    """The buffer has no chunk data."""
    CHUNK_CORRUPT = 1 << 24
    """Low bits of all chunk data are wrong."""
    PAYLOAD_TOO_LARGE = 1 << 25
    """More came than the buffer holds: its second half is what lay there before; the buffer says so, not that it is incomplete."""
    SIZE_CHANGE = 1 << 26
    """The image has half its rows, and the buffer says so."""
    X_PADDING = 1 << 27
    """Each row is followed by padding; planned before the acquisition starts."""
    WRONG_PIXEL_FORMAT = 1 << 28
    """The buffer says that it is BayerGB8."""
    MISSED_TRIGGER = 1 << 29
    """The camera did not see the trigger: no frame, no frame id, and its own count does not advance."""
    DOUBLE_TRIGGER = 1 << 30
    """Two exposures of one trigger: two frames and frame ids, one count."""
    STALE_FRAME = 1 << 31
    """Shows the image of the trigger five before it."""
    ENCODER_JUMP = 1 << 32
    """The encoder is 100 steps further from here on."""
    ENCODER_ROLLOVER = 1 << 33
    """The 32-bit encoder rolls over to 0 with this trigger; planned before the camera is made."""
    ENCODER_REVERSE = 1 << 34
    """The encoder goes one step back instead of forward."""
    LINE_BOUNCE = 1 << 35
    """This trigger is none: the line bounced shortly after the one before it."""
    IMAGE_SHIFTED = 1 << 36
    """The image is displaced by a quarter of its width."""
    IMAGE_TORN = 1 << 37
    """The lower half is that of the image before it."""
    LEAK = 1 << 38
    """The producer keeps 4 MiB for ever."""
    REGISTER_SLOW = 1 << 39
    """While this is the last trigger, each access to a register takes longer."""
    REGISTER_TIMEOUT = 1 << 40
    """While this is the last trigger, each access to a register fails after a time."""
    OPEN_BUSY = 1 << 41
    """Opening is refused: the device is in use."""
    START_FAIL = 1 << 42
    """The stream does not start."""
    STOP_FAIL = 1 << 43
    """The stream does not stop."""
    XML_BROKEN = 1 << 44
    """The second half of the device's description is rubbish while it is open."""
    EXPOSURE_REJECTED = 1 << 45
    """Half of the exposure time that is written is taken."""
    OUTPUT_STUCK = 1 << 46
    """The user output that is written is not taken over."""
    UNLISTED = 1 << 47
    """The device is not there for the life of this library."""
    SAME_SERIAL = 1 << 48
    """The device shows its neighbour's serial (0 and 1, 2 and 3, ...) for the life of this library."""


UNPLANNED = Fault.ABSENT | Fault.UNDERRUN
"""Never asked for: they happen."""
CALL_FAULTS = (
    Fault.OPEN_BUSY
    | Fault.START_FAIL
    | Fault.STOP_FAIL
    | Fault.XML_BROKEN
    | Fault.EXPOSURE_REJECTED
    | Fault.OUTPUT_STUCK
    | Fault.UNLISTED
    | Fault.SAME_SERIAL
)
"""They hit no triggers but calls, counted from 1 in the device's life: openings, starts, stops, writings, initialisations of the library."""
DEFAULT_MS = {
    Fault.TIMESTAMP_JUMP: 10_000.0,
    Fault.TIMESTAMP_BACKWARDS: 10_000.0,
    Fault.DOUBLE_TRIGGER: 3.0,
    Fault.LINE_BOUNCE: 3.0,
    Fault.REGISTER_SLOW: 50.0,
    Fault.REGISTER_TIMEOUT: 50.0,
}
"""Where no duration is given; 0 for the others."""


@dataclass(frozen=True, slots=True)
class Node:
    """One feature of the camera; ``initial`` is its value at power on."""

    name: str
    category: str
    kind: Kind
    text: str
    initial: float = 0
    minimum: float | None = None
    maximum: float | None = None
    step: int | None = None
    unit: str = ""
    access: Access = "RW"
    entries: tuple[tuple[str, int], ...] = ()
    locked: bool = False
    """Not writable while the stream runs."""
    selects: tuple[str, ...] = ()


_FORMAT, _ACQUISITION, _COUNTER, _IO = "ImageFormatControl", "AcquisitionControl", "CounterAndTimerControl", "DigitalIOControl"
_CHUNK, _LAYER, _DEVICE, _SIM, _FAULT = "ChunkDataControl", "TransportLayerControl", "DeviceControl", "SimulationControl", "SimFaultControl"
_FAULT_ENTRIES = tuple((fault.name or "", index) for index, fault in enumerate(Fault) if fault not in UNPLANNED)
_CHUNK_ENTRIES = tuple((name.removeprefix("Chunk"), index) for index, name in enumerate(CHUNKS))

NODES: tuple[Node, ...] = (
    Node("Width", _FORMAT, "integer", "Columns; images are cut or padded with black on the right.", 1280, 16, 8192, 4, "px", locked=True),
    Node("Height", _FORMAT, "integer", "Rows; images are cut or padded with black below.", 960, 16, 8192, 2, "px", locked=True),
    Node(
        "PixelFormat",
        _FORMAT,
        "enumeration",
        "What the feed is converted to.",
        0x01080001,
        entries=(("Mono8", 0x01080001), ("BayerRG8", 0x01080009), ("RGB8", 0x02180014)),
        locked=True,
    ),
    Node("AcquisitionMode", _ACQUISITION, "enumeration", "Always continuous.", entries=(("Continuous", 0),)),
    Node("AcquisitionStart", _ACQUISITION, "command", "Frames flow; frame ids start at 1; a line that does not run yet starts.", access="WO"),
    Node("AcquisitionStop", _ACQUISITION, "command", "Frames stop; the line runs on.", access="WO"),
    Node(
        "AcquisitionFrameRate", _ACQUISITION, "float", "Free run; at most 1e6 / ExposureTime: more is cut down silently.", 30, 0.01, 100000, unit="Hz"
    ),
    Node("TriggerSelector", _ACQUISITION, "enumeration", "The only trigger.", entries=(("FrameStart", 0),)),
    Node("TriggerMode", _ACQUISITION, "enumeration", "Off: free run.", entries=(("Off", 0), ("On", 1))),
    Node("TriggerSource", _ACQUISITION, "enumeration", "Line0: the simulated line.", entries=(("Software", 0), ("Line0", 1))),
    Node("TriggerSoftware", _ACQUISITION, "command", "One trigger, if TriggerMode is On and TriggerSource is Software.", access="WO"),
    Node(
        "ExposureTime",
        _ACQUISITION,
        "float",
        "Brightness goes with it; rounded to 1 us. An image is ready when its exposure is over.",
        200,
        1,
        1e6,
        unit="us",
    ),
    Node("Gain", "AnalogControl", "float", "Brightness goes with 10^(dB/20).", 0, 0, 24, unit="dB"),
    Node("CounterSelector", _COUNTER, "enumeration", "The only counter.", entries=(("Counter0", 0),), selects=("CounterValue",)),
    Node("CounterValue", _COUNTER, "integer", "Triggers since the device was made, but those that it missed.", access="RO"),
    Node(
        "UserOutputSelector",
        _IO,
        "enumeration",
        "Which output UserOutputValue means.",
        entries=(("UserOutput0", 0), ("UserOutput1", 1)),
        selects=("UserOutputValue",),
    ),
    Node("UserOutputValue", _IO, "boolean", "The selected output."),
    Node("LineStatusAll", _IO, "integer", "Bit 0: trigger line; bits 1 and 2: user outputs.", access="RO"),
    Node("EncoderValue", "EncoderControl", "integer", "SimEncoderStep counts per trigger.", access="RO"),
    Node("ChunkModeActive", _CHUNK, "boolean", "Chunk data follow each image.", locked=True),
    Node("ChunkSelector", _CHUNK, "enumeration", "Which chunk ChunkEnable means.", entries=_CHUNK_ENTRIES, selects=("ChunkEnable",)),
    Node("ChunkEnable", _CHUNK, "boolean", "The selected chunk; all are on at power on.", locked=True),
    Node("TimestampLatch", _DEVICE, "command", "Reads the camera's own clock.", access="WO"),
    Node("TimestampLatchValue", _DEVICE, "integer", "What TimestampLatch read.", unit="ns", access="RO"),
    Node("PayloadSize", _LAYER, "integer", "Bytes per frame, chunk data included.", unit="B", access="RO"),
    Node("TLParamsLocked", _LAYER, "integer", "Set by the consumer while the stream runs.", 0, 0, 1),
    Node("SimLineRate", _SIM, "float", "Triggers per second of the simulated line.", 50, 0.01, 10000, unit="Hz"),
    Node("SimLineAutoStart", _SIM, "boolean", "The line starts with the first acquisition.", 1),
    Node("SimLineStart", _SIM, "command", "The line starts, or starts again.", access="WO"),
    Node("SimTriggerLimit", _SIM, "integer", "The line stops after so many triggers; 0: never.", 0, 0, 2**53),
    Node("SimEncoderStep", _SIM, "integer", "Encoder counts from trigger to trigger.", 1000, 0, 1000000),
    Node("SimNominalExposure", _SIM, "float", "Exposure at which images are shown as they are.", 200, 1, 1e6, unit="us"),
    Node("SimLinePadding", _SIM, "integer", "Bytes behind each line of an image.", 0, 0, 256, 1, "B", locked=True),
    Node("SimFramesDelivered", _SIM, "integer", "Frames handed to the consumer.", access="RO"),
    Node("SimUnderruns", _SIM, "integer", "Frames lost because no buffer was queued.", access="RO"),
    Node("SimFaultSelector", _FAULT, "enumeration", "Which fault SimFaultApply plans.", entries=_FAULT_ENTRIES),
    Node("SimFaultAt", _FAULT, "integer", "Trigger (or call) at which it happens; 0: the next trigger.", 0, 0, 2**53),
    Node("SimFaultCount", _FAULT, "integer", "Triggers in a row that it hits.", 1, 1, 2**53),
    Node("SimFaultEvery", _FAULT, "integer", "Instead of once, at every multiple of this; 0: once.", 0, 0, 2**53),
    Node("SimFaultRate", _FAULT, "float", "Instead of once, with this probability per trigger; 0: once.", 0, 0, 1),
    Node("SimFaultDuration", _FAULT, "float", "How long, where the fault has a duration; 0: its default.", 0, 0, 1e9, unit="ms"),
    Node("SimFaultApply", _FAULT, "command", "Plans the fault.", access="WO"),
    Node("SimFaultClear", _FAULT, "command", "Forgets every planned fault.", access="WO"),
)
