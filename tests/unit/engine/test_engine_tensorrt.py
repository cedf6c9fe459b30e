from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from inspector.contract.errors import EngineError
from inspector.engine.device import Cuda
from inspector.engine.manifest import Backend, EngineFile, Manifest, TensorSpec, encode_manifest, file_sha256
from inspector.engine.opening import open_engine
from inspector.engine.tensorrt import TensorRtContext, TensorRtEngine, TensorRtPlan, load_library

ASSET = Path(__file__).resolve().parents[2] / "assets" / "gpu_double.py"


@pytest.fixture(scope="module")
def double() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_double", ASSET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def grey(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((1, 64, 64), level, np.uint8)


def test_two_images_in_flight_never_share_memory(manifest: Manifest, double: ModuleType) -> None:
    gpu = double.HostGpu()
    with TensorRtEngine(manifest, double.HostPlan(manifest, gpu), gpu) as engine:
        assert len(gpu.memory) == 2 * 5
        for level in (0, 51, 204):
            first, second = engine.submit(grey(level)), engine.submit(grey(255))
            late, early = engine.collect(second), engine.collect(first)
            assert early["scores"][0, 0] == pytest.approx(level / 255)
            assert late["scores"][0, 0] == pytest.approx(1.0)
    assert gpu.closed == 1


def test_a_failed_wait_raises_and_old_boxes_never_come_back(manifest: Manifest, double: ModuleType) -> None:
    gpu = double.HostGpu()
    engine = TensorRtEngine(manifest, double.HostPlan(manifest, gpu), gpu)
    engine.collect(engine.submit(grey(255)))
    gpu.fail_wait = True
    ticket = engine.submit(grey(10))
    with pytest.raises(EngineError, match="illegal address"):
        engine.collect(ticket)
    with pytest.raises(EngineError, match="not in flight"):
        engine.collect(ticket)
    gpu.fail_wait = False
    assert engine.collect(engine.submit(grey(51)))["scores"][0, 0] == pytest.approx(0.2)
    engine.close()


def test_a_refused_run_raises_and_gives_its_slot_back(manifest: Manifest, double: ModuleType) -> None:
    gpu = double.HostGpu()
    plan = double.HostPlan(manifest, gpu, refuse=True)
    engine = TensorRtEngine(manifest, plan, gpu)
    for _ in range(5):
        with pytest.raises(EngineError, match="refused to run"):
            engine.submit(grey(1))
    engine.close()


@pytest.mark.parametrize("fault", ["missing", "dtype", "shape", "extra"])
def test_a_plan_that_does_not_fit_the_manifest_is_refused(manifest: Manifest, double: ModuleType, fault: str) -> None:
    gpu = double.HostGpu()
    plan = double.HostPlan(manifest, gpu)
    first = plan.ports[0]
    plan.ports = {
        "missing": plan.ports[1:],
        "dtype": (msgspec.structs.replace(first, dtype="float32"), *plan.ports[1:]),
        "shape": (msgspec.structs.replace(first, shape=(-1, 3, 64, 64)), *plan.ports[1:]),
        "extra": (*plan.ports, msgspec.structs.replace(first, name="more")),
    }[fault]
    with pytest.raises(EngineError, match="plan"):
        TensorRtEngine(manifest, plan, gpu)


def test_every_status_of_the_library_counts() -> None:
    class Context:
        def __init__(self, **answers: bool) -> None:
            self.answers = answers
            self.called: list[str] = []

        def __getattr__(self, name: str) -> object:
            def call(*arguments: object) -> bool:
                self.called.append(name)
                return self.answers.get(name, True)

            return call

    steps = ["set_input_shape", "set_tensor_address", "execute_async_v3"]
    image = TensorSpec("image", "uint8", (1, 1, 64, 64))
    good = Context()
    assert TensorRtContext(good).enqueue(image, {"image": 1, "boxes": 2}, 3)
    assert good.called == ["set_input_shape", "set_tensor_address", "set_tensor_address", "execute_async_v3"]
    for step in steps:
        assert not TensorRtContext(Context(**{step: False})).enqueue(image, {"image": 1}, 3)


def test_the_adapter_takes_the_library_that_the_manifest_names() -> None:
    asked: list[str] = []

    def load(name: str) -> str:
        asked.append(name)
        if name == "tensorrt_rtx":
            raise ImportError("no tensorrt_rtx")
        return f"module {name}"

    assert load_library("tensorrt", load) == "module tensorrt"
    assert load_library("tensorrt_rtx", load) == "module tensorrt_rtx_bindings"
    assert asked == ["tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"]

    def nothing(name: str) -> None:
        raise ImportError(f"no {name}")

    with pytest.raises(EngineError, match=r"tensorrt cannot be loaded \(no tensorrt\).*inspectord\[gpu\]"):
        load_library("tensorrt", nothing)


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


@pytest.mark.skipif(_has_driver(), reason="there is a GPU here")
def test_without_a_driver_there_is_one_clear_sentence() -> None:
    with pytest.raises(EngineError, match=r"no GPU can be used here .*compile it for the CPU"):
        Cuda()


@pytest.mark.skipif(_has_driver(), reason="there is a GPU here")
def test_opening_a_gpu_engine_without_gpu_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    trt = load_library("tensorrt_rtx")
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"a plan")
    gpu = msgspec.structs.replace(
        manifest, backend=Backend("tensorrt_rtx", str(trt.__version__)), files=(EngineFile("tiny.plan", file_sha256(plan), "plan"),)
    )
    path = tmp_path / "tiny.engine.json"
    path.write_bytes(encode_manifest(gpu))
    with pytest.raises(EngineError, match="no GPU can be used here"):
        open_engine(path)
    path.write_bytes(encode_manifest(msgspec.structs.replace(gpu, backend=Backend("tensorrt_rtx", "0.1"))))
    with pytest.raises(EngineError, match=r"was built with tensorrt_rtx 0\.1"):
        open_engine(path)


def test_a_plan_that_the_library_cannot_load_is_an_error() -> None:
    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> None:
            return None

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None: ...

    library = ModuleType("tensorrt_double")
    vars(library).update(Runtime=Runtime, Logger=Logger, __version__="11.0")
    with pytest.raises(EngineError, match="cannot load the plan"):
        TensorRtPlan(library, b"")
