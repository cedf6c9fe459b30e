"""The station file: cameras, endpoints and folders of one station, and the product it runs."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from inspector.config.announcing import announce_problems
from inspector.config.base import Section, load_toml, parse_section
from inspector.config.keys import KeyRing
from inspector.config.product import Name, Product, missing_engines, read_product
from inspector.contract.errors import ConfigError

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class IdentityRules(Section):
    """How a part is told from the next one."""

    part_id: Literal["trigger_counter", "encoder", "announced", "frame"] = "frame"
    """What the camera latches with each frame; ``announced``: only what the controller announces, matched by expected time or encoder;
    ``frame``: frame id and exposure time, without an id of the line."""
    max_gap: Annotated[int, Field(ge=0)] = 100
    """Missing frames in a row that are opened as parts; more than that is blind."""
    frame_id_bits: Literal[16, 32, 64] = 64
    """Width of the camera's frame counter: 16 wraps at 65,535."""
    frame_id_first_after_wrap: Literal[0, 1] = 0
    """GigE Vision 1.x skips 0."""


class CameraConfig(Section):
    """One camera and the process around it."""

    name: Name
    kind: Literal["genicam", "simulator", "folder"] = "genicam"
    producer: Path | None = None
    """genicam: the vendor's GenTL producer (.cti)."""
    serial: str | None = None
    """genicam: the camera's serial number; None: the only camera there is."""
    images: Path | None = None
    """folder: the pictures, taken in name order. simulator: its feed (a folder, or a feed file)."""
    rate_hz: Annotated[float, Field(gt=0)] | None = None
    """folder and simulator: images per second."""
    trigger: Literal["free_run", "line", "software"] = "line"
    exposure_us: Annotated[float, Field(gt=0)] | None = None
    gain_db: Annotated[float, Field(ge=0)] | None = None
    width_px: Annotated[int, Field(gt=0)] | None = None
    height_px: Annotated[int, Field(gt=0)] | None = None
    pixel_format: Literal["Mono8", "BayerRG8", "RGB8"] | None = None
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further nodes, written after the named ones, in this order, and read back."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Added to the camera process's environment (a vendor's settings, faults of the simulator)."""
    ring_slots: Annotated[int, Field(ge=2, le=4096)] = 16
    max_image_bytes: Annotated[int, Field(gt=0, le=2**31)] = 25_000_000
    """Size of a slot; an image that does not fit is invalid."""
    heartbeat_s: Seconds = 2.0
    """A camera process that is silent for so long is killed."""
    restart_min_s: Seconds = 0.2
    restart_max_s: Seconds = 10.0
    """Back-off between starts doubles from min to max."""
    frame_timeout_s: Seconds = 2.0
    """Free run: silence after which the camera is stalled."""
    identity: IdentityRules = IdentityRules()

    @model_validator(mode="after")
    def _kind(self) -> Self:
        if self.kind == "genicam" and self.producer is None:
            raise ValueError("producer is missing: a genicam camera needs its vendor's GenTL producer (.cti)")
        if self.kind == "folder" and self.images is None:
            raise ValueError("images is missing: a folder camera needs the folder of its pictures")
        return self


class PublisherConfig(Section):
    """The ZeroMQ publisher in the line thread."""

    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")] = "tcp://127.0.0.1:5570"
    heartbeat_ms: Annotated[float, Field(ge=5, le=1000)] = 40.0
    high_water_mark: Annotated[int, Field(ge=1000)] = 100_000


class ChannelConfig(Section):
    """The request socket for line controllers, beside the publisher."""

    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")] = "tcp://127.0.0.1:5571"
    controllers: tuple[Name, ...] = ()
    """Who must be connected and acknowledge what does not pass; by the name of their key, or of their hello where there are no keys."""
    present_ms: Annotated[float, Field(ge=50)] = 500.0
    """A controller that says nothing for so long is not connected."""
    ack_ms: Annotated[float, Field(gt=0)] = 200.0
    """A verdict that does not pass is to be acknowledged within this."""
    repair_ms: Annotated[float, Field(gt=0)] = 60.0
    """Told to controllers: a gap that is not repaired after this turns its parts to "do not pass"."""
    announce_by: Literal["time_and_encoder", "time", "encoder"] = "time_and_encoder"
    """What each announcement must give. ``time`` alone is safe at one belt speed without stops, ``encoder`` alone with one that never slips."""
    announce_window_ms: Annotated[float, Field(gt=0)] = 20.0
    """How far a part may be off the time that was announced for it; less than half of what is between two parts."""
    announce_encoder_window: Annotated[int, Field(ge=0)] = 50
    """The same in encoder steps."""
    announce_timeout_ms: Annotated[float, Field(gt=0)] = 10_000.0
    """An announced part without an expected time that has not appeared after this is given up."""
    requests_per_s: Annotated[float, Field(ge=10)] = 2000.0
    """From one asker; beyond it requests are refused or dropped."""


class AccessConfig(Section):
    """Who may speak: keys made by ``inspector keys``."""

    keys: Path | None = None
    """Folder of the station's keys; relative to the station file. None: no keys, and only addresses of this machine (loopback, ipc)."""


class JournalConfig(Section):
    """The SQLite journal."""

    path: Path = Path("journal.sqlite")
    """Relative to the state directory; never on a network share."""
    commit_ms: Annotated[float, Field(gt=0)] = 50.0
    """Rows are committed together, at least this often."""
    max_queued: Annotated[int, Field(ge=100)] = 100_000
    """Parts kept in memory while the disk refuses; the rest is counted."""


class MetricsConfig(Section):
    """Prometheus."""

    host: str = "127.0.0.1"
    port: Port = 9570
    """0: any free port (it is logged)."""


class ArchiveConfig(Section):
    """Annotated pictures of rejected parts."""

    path: Path = Path("pictures")
    """Relative to the state directory."""
    enabled: bool = True
    max_pictures: Annotated[int, Field(ge=1)] = 10_000
    """The oldest are removed beyond it."""
    pool: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures that wait in memory; what does not fit is counted."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 85


class Station(Section):
    """One station. Unknown keys are refused."""

    name: Name
    product: Path
    """The product recipe; relative to the station file, like every path in it."""
    state_dir: Path = Path("state")
    cameras: Annotated[tuple[CameraConfig, ...], Field(min_length=1)]
    publisher: PublisherConfig = PublisherConfig()
    channel: ChannelConfig = ChannelConfig()
    access: AccessConfig = AccessConfig()
    runtime_dir: Path | None = None
    """Where the flight recorder lies: memory, not a disk. None: ``$RUNTIME_DIRECTORY`` (systemd), else ``run`` in the state directory."""
    journal: JournalConfig = JournalConfig()
    metrics: MetricsConfig = MetricsConfig()
    archive: ArchiveConfig = ArchiveConfig()

    @field_validator("cameras")
    @classmethod
    def _distinct(cls, cameras: tuple[CameraConfig, ...], _: ValidationInfo) -> tuple[CameraConfig, ...]:
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise ValueError("two cameras have the same name")
        return cameras


class StationFiles(Section):
    """A station file and the product recipe it names, checked together; all paths absolute."""

    station: Station
    product: Product


def _absolute(station: Station, base: Path) -> Station:
    state = base / station.state_dir
    cameras = tuple(
        camera.model_copy(update={"producer": camera.producer and base / camera.producer, "images": camera.images and base / camera.images})
        for camera in station.cameras
    )
    return station.model_copy(
        update={
            "product": base / station.product,
            "state_dir": state,
            "runtime_dir": station.runtime_dir and base / station.runtime_dir,
            "cameras": cameras,
            "access": AccessConfig(keys=station.access.keys and base / station.access.keys),
            "journal": station.journal.model_copy(update={"path": state / station.journal.path}),
            "archive": station.archive.model_copy(update={"path": state / station.archive.path}),
        }
    )


def _missing_in_station(station: Station, source: Path) -> list[str]:
    paths = (
        (index, key, path) for index, camera in enumerate(station.cameras) for key, path in (("producer", camera.producer), ("images", camera.images))
    )
    return [f"{source}: cameras.{index}.{key}: no such file: {path}" for index, key, path in paths if path is not None and not path.exists()]


def _access_problems(station: Station, source: Path) -> list[str]:
    keys = station.access.keys
    if keys is None:
        endpoints = (("publisher", station.publisher.endpoint), ("channel", station.channel.endpoint))
        return [
            f"{source}: {section}.endpoint: {endpoint} can be reached from other machines, and there are no keys: "
            "name their folder in access.keys and make them with `inspector keys new`, or use tcp://127.0.0.1"
            for section, endpoint in endpoints
            if not _is_local(endpoint)
        ]
    try:
        KeyRing(keys).station()
        KeyRing(keys).persons()
    except ConfigError as error:
        return [f"{source}: access.keys: {problem}" for problem in error.problems]
    return []


def _is_local(endpoint: str) -> bool:
    """Whether only this machine can reach it."""
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host in {"localhost", "lo"} or ip_address(host).is_loopback
    except ValueError:
        return False  # a wildcard, an interface or a name: whoever it may be


def _group_problems(files: StationFiles, source: Path) -> list[str]:
    known = {camera.name for camera in files.station.cameras}
    problems = [f"{files.station.product}: views: {name}: the station has no such camera" for name in files.product.views if name not in known]
    if files.product.views:
        problems += [
            f"{source}: cameras.{index}.identity.part_id: a group of cameras needs an id of the line (trigger_counter or encoder), not 'frame'"
            for index, camera in enumerate(files.station.cameras)
            if camera.name in files.product.views and camera.identity.part_id == "frame"
        ]
    return problems


def read_key_folder(path: Path) -> tuple[str, Path]:
    """Name of the station and the folder of its keys, be it there or not yet.

    Raises:
        ConfigError: the station file is wrong, or names no folder.
    """
    station = _absolute(parse_section(str(path), load_toml(path), Station), path.parent.absolute())
    if station.access.keys is None:
        raise ConfigError([f'{path}: access.keys: is missing: add a section [access] with keys = "keys", the folder where they shall lie'])
    return station.name, station.access.keys


def read_station(path: Path) -> StationFiles:
    """A station file and its product recipe, both checked whole before anything is reported.

    Raises:
        ConfigError: every problem of both files, one line each, naming file and key.
    """
    problems: list[str] = []
    station: Station | None = None
    product: Product | None = None
    values = load_toml(path)
    product_path = path.parent / str(values.get("product", ""))
    try:
        station = _absolute(parse_section(str(path), values, Station), path.parent.absolute())
        problems += _missing_in_station(station, path) + _access_problems(station, path)
    except ConfigError as error:
        problems += error.problems
    if "product" in values:
        try:
            product = read_product(product_path)
            problems += missing_engines(product, product_path)
        except ConfigError as error:
            problems += error.problems
    if station is None or product is None:
        raise ConfigError(problems)
    files = StationFiles(station=station, product=product)
    problems += _group_problems(files, path) + announce_problems(files, path)
    if problems:
        raise ConfigError(problems)
    return files
