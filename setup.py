"""Builds the simulated camera's GenTL producer (.cti) beside the package; everything else is in pyproject.toml.

Without a C++ compiler the build says so and goes on: the folder camera needs no producer.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SIMULATOR = "inspector.camera.simulator.inspector_simulator"
SOURCES = ROOT / "inspector" / "camera" / "simulator" / "src"


def find_compiler() -> list[str] | None:
    """The C++ compiler's command: CXX from the environment, or the first usual name that is there."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else [["g++"], ["c++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    return None


def say(text: str) -> None:
    """A line that the installer shows even where it hides a build's ordinary output."""
    sys.stderr.write(f"inspector: {text}\n")


class BuildProducer(build_ext):
    """Compiles the producer: no Python module, hence neither Python's flags nor its file name."""

    def get_ext_filename(self, fullname: str) -> str:
        """``inspector/camera/simulator/inspector_simulator.cti``."""
        return str(Path(*fullname.split("."))) + ".cti"

    def build_extension(self, ext: Extension) -> None:
        """Generate the included tables, compile, move into place; say so where that cannot be done."""
        compiler = find_compiler()
        if compiler is None:
            say("no C++ compiler was found (g++, c++, clang++ or CXX): the simulated camera is left out, the folder camera takes its place")
            return
        sys.path.insert(0, str(ROOT))
        try:
            from inspector.camera.simulator.generate import write_includes  # noqa: PLC0415 - only here is the source tree importable
        finally:
            sys.path.pop(0)
        included = Path(self.build_temp).resolve() / "simulator"
        included.mkdir(parents=True, exist_ok=True)
        write_includes(included)
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        made = included / target.name
        # nodelete: the cameras' state outlives the library's unloading, as a device outlives its driver's.
        command = [*compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Wshadow", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
        command += [f"-I{included}", f"-I{SOURCES}", *sorted(str(path) for path in SOURCES.glob("*.cpp"))]
        command += ["-o", str(made), "-static-libgcc", "-Wl,--no-undefined", "-Wl,-z,nodelete"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            say(f"the simulated camera did not compile and is left out, the folder camera takes its place:\n{result.stderr}")
            return
        made.replace(target)  # at once: a running process may have the old file mapped


class PlatformWheel(bdist_wheel):
    """The wheel holds one shared library and no Python extension: any Python 3, this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """``py3-none-PLATFORM``."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension(SIMULATOR, sources=[], optional=True)],
    cmdclass={"build_ext": BuildProducer, "bdist_wheel": PlatformWheel},
)
