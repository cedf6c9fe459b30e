"""Between the station and its controllers: slow readers, cut networks, announcements, commands."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable

import zmq
from kinds import Injected, at_least, kind
from plant import ChaosError, Plant

from inspector.camera.simulator.nodes import Fault
from inspector.contract.requests import Command, CommandName, Hello, Refused, Request, decode_reply, encode


@kind("subscriber_at_high_water_mark", "line", subset=True)
def subscriber_at_high_water_mark(plant: Plant) -> Injected:
    """A controller stands still until the publisher drops its messages; the others do not notice."""
    plant.write(plant.camera("", 0, rate=200), high_water_mark=1000)
    plant.listen("observer")
    plant.listen("controller", "--receive-buffer", "8192")
    plant.daemon("stamp,crowd_every=1")
    plant.ready()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    goal = plant.heard() + 1600
    plant.freeze(plant.controller.process.pid, lambda: plant.heard() > goal, "more than the high-water mark was sent")
    plant.wait(lambda: _notices(plant, "gap"), "the controller has seen the gap")
    plant.finish()
    return at_least(_notices(plant, "gap"), 1, "the controller's own notice; messages lost")


def _notices(plant: Plant, kind_of: str) -> int:
    plant.controller.refresh()
    return sum(note["missing"] for note in plant.controller.of("notice") if note["kind"] == kind_of)


class Cable:
    """A network of its own for the controller, and a cable to it."""

    def __init__(self, plant: Plant) -> None:
        self.host, self.controller = "10.77.0.1", "10.77.0.2"
        # It lives as long as its standard input, which is this process's.
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        plant.helpers.append(self.holder)
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.write(b"\n")
        self.holder.stdin.flush()
        self.holder.stdout.read(1)  # it runs in its own network now
        self.inside = ("nsenter", "--target", str(self.holder.pid), "--net")
        _ip("link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(self.holder.pid))
        _ip("addr", "add", f"{self.host}/24", "dev", "cable0")
        _ip("link", "set", "cable0", "up")
        for words in (("addr", "add", f"{self.controller}/24", "dev", "cable1"), ("link", "set", "cable1", "up"), ("link", "set", "lo", "up")):
            subprocess.run([*self.inside, "ip", *words], check=True)

    def cut(self) -> None:
        _ip("link", "set", "cable0", "down")

    def mend(self) -> None:
        _ip("link", "set", "cable0", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _network(plant: Plant, pauses_ms: list[float], meanwhile: Callable[[], object] = lambda: None) -> Injected:
    cable = Cable(plant)
    plant.host = cable.host
    keys = plant.folder / "keys"
    plant.write(plant.camera("", 0), extra=f'[access]\nkeys = "{keys}"\n')
    for name in ("observer", "controller"):
        _inspector("keys", "new", name, str(plant.folder / "station.toml"), "--role", name, "--to", str(plant.folder / f"{name}.key"))
    plant.listen("observer", "--key", str(plant.folder / "observer.key"))
    plant.listen("controller", "--key", str(plant.folder / "controller.key"), prefix=cable.inside)
    plant.daemon()
    plant.ready()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    for pause_ms in pauses_ms:
        plant.controller.refresh()
        decided = sum(note["passes"] for note in plant.controller.of("decision"))
        cable.cut()
        meanwhile()
        plant.wait(plant.for_ms(pause_ms), "the cable is cut for a while")
        cable.mend()
        plant.wait_passes(decided + 40)
    plant.finish()
    at_least(_silences(plant), len(pauses_ms), "the controller heard nothing so often")
    return Injected(len(pauses_ms), "the controller heard nothing so often")


def _silences(plant: Plant) -> int:
    return sum(note["kind"] == "dead" and bool(note["stream"]) for note in plant.controller.of("notice"))


def _inspector(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "inspector.cli.main", *words], check=True, capture_output=True)


@kind("network_cut", "line", needs_root=True, subset=True)
def network_cut(plant: Plant) -> Injected:
    """The controller's cable is cut for 1.2 s."""
    return _network(plant, [1200])


@kind("network_cut_often", "line", needs_root=True)
def network_cut_often(plant: Plant) -> Injected:
    """The controller's cable is cut six times, for 0.2 to 1 s."""
    return _network(plant, [plant.rng.uniform(200, 1000) for _ in range(6)])


@kind("network_cut_and_daemon_killed", "line", needs_root=True)
def network_cut_and_daemon_killed(plant: Plant) -> Injected:
    """While the cable is cut the daemon is killed and started again."""

    def kill_it() -> None:
        plant.end(number=signal.SIGKILL)
        plant.again()

    return _network(plant, [300], kill_it)


def _announced(plant: Plant, faults: str = "", *, forget: int = 0, ghost: int = 0, parts: int = 300) -> None:
    rate, deadline_ms = 25, 400
    plant.channel = "announce_window_ms = 15"
    plant.write(plant.camera(faults, parts, rate=rate, identity="announced"), deadline_ms=deadline_ms)
    plant.listen("observer")
    plan = (plant.lines[0].folder, parts - 10, rate, deadline_ms, forget, ghost)  # what bounces takes a number of the line
    plant.listen("controller", "--announce", *(str(one) for one in plan))
    plant.daemon()
    plant.ready()


@kind("announced_never_come", "announced parts", subset=True)
def announced_never_come(plant: Plant) -> Injected:
    """Parts are announced that never come."""
    _announced(plant, ghost=23)
    plant.finish()
    return at_least(len(plant.ghosts()), 5, "the controller's own note")


@kind("announcements_lost", "announced parts")
def announcements_lost(plant: Plant) -> Injected:
    """Parts come that nobody announced."""
    _announced(plant, forget=29)
    plant.finish()
    return at_least(len(plant.events("unannounced_part")), 5, "event unannounced_part")


@kind("triggers_missed", "announced parts")
def triggers_missed(plant: Plant) -> Injected:
    """The camera does not see the trigger of announced parts, and does not count it."""
    places = [90 + plant.rng.randrange(20), 150 + plant.rng.randrange(20), 210 + plant.rng.randrange(20)]
    _announced(plant, ",".join(f"missed_trigger_at={place}" for place in places))
    plant.finish()
    return at_least(plant.flags(Fault.MISSED_TRIGGER), 3, "MISSED_TRIGGER in the trigger log")


@kind("announced_and_bounced", "announced parts")
def announced_and_bounced(plant: Plant) -> Injected:
    """The trigger line bounces: a second frame of an announced part."""
    _announced(plant, "line_bounce_every=61")
    plant.finish()
    return at_least(plant.flags(Fault.LINE_BOUNCE), 3, "LINE_BOUNCE in the trigger log")


@kind("announced_and_doubled", "announced parts")
def announced_and_doubled(plant: Plant) -> Injected:
    """Two exposures of one trigger, of parts that were announced."""
    _announced(plant, "double_trigger_every=61")
    plant.finish()
    return at_least(plant.flags(Fault.DOUBLE_TRIGGER), 3, "DOUBLE_TRIGGER in the trigger log")


@kind("announced_and_dropped", "announced parts")
def announced_and_dropped(plant: Plant) -> Injected:
    """Images of announced parts are lost."""
    _announced(plant, "drop_every=47")
    plant.finish()
    return at_least(plant.flags(Fault.DROP), 4, "DROP in the trigger log")


@kind("announcer_sigkill", "announced parts")
def announcer_sigkill(plant: Plant) -> Injected:
    """SIGKILL of the controller that announces; another one goes on."""
    _announced(plant)
    plant.wait_trigger(100 + plant.rng.randrange(40))
    plant.controller.process.kill()
    code = plant.controller.process.wait()
    plant.listen("controller-2", "--announce", str(plant.lines[0].folder), "290", "25", "400", "0", "0")
    plant.finish()
    return at_least(int(code == -signal.SIGKILL), 1, "exit status -9")


class Desk:
    """A person at the request socket; commands need an answer."""

    def __init__(self, plant: Plant) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://{plant.host}:{plant.channel_port}")
        self._no = 0
        self._ask(Hello(no=0, name="engineer"))

    def command(self, name: CommandName) -> None:
        """Give a command; it is done when this returns."""
        self._no += 1
        self._ask(Command(no=self._no, name=name))

    def _ask(self, request: Request) -> None:
        self._socket.send(encode(request))
        if not self._socket.poll(10_000):
            raise ChaosError(f"no answer to {request}")
        reply = decode_reply(self._socket.recv())
        if isinstance(reply, Refused):
            raise ChaosError(f"{request} was refused: {reply}")

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@kind("paused_and_resumed", "line", subset=True)
def paused_and_resumed(plant: Plant) -> Injected:
    """The inspection is paused and resumed under load, four times."""
    plant.write(plant.camera("", 700))
    plant.begin()
    desk = Desk(plant)
    for _ in range(4):
        plant.wait_verdicts(plant.heard() + 20 + plant.rng.randrange(30))
        desk.command(CommandName.PAUSE)
        plant.wait_verdicts(plant.heard() + 20)
        desk.command(CommandName.RESUME)
    desk.close()
    plant.finish()
    return at_least(sum(part.reason == "paused" for part in plant.parts()), 10, "parts of paused")


@kind("reloaded", "line")
def reloaded(plant: Plant) -> Injected:
    """The product recipe is read again under load, once with a fault in it."""
    plant.write(plant.camera("", 600))
    plant.begin()
    desk = Desk(plant)
    product = plant.folder / "product.toml"
    text = product.read_text()
    for version in ("2", "3", "4"):
        plant.wait_verdicts(plant.heard() + 60)
        product.write_text(text.replace('version = "1"', f'version = "{version}"'))
        desk.command(CommandName.RELOAD)
    product.write_text(text + "\nnonsense = 1\n")
    plant.wait_verdicts(plant.heard() + 60)
    with contextlib.suppress(ChaosError):
        desk.command(CommandName.RELOAD)
    desk.close()
    plant.finish()
    versions = {part.product_version for part in plant.parts()}
    return at_least(len(versions) - 1, 3, "product versions in the journal")
