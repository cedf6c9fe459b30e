"""What every engine promises, run over all of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from inspector.compile.build import new_manifest
from inspector.compile.network import read_network
from inspector.contract.errors import EngineError
from inspector.engine.base import Engine, Ticket
from inspector.engine.guard import GuardedEngine
from inspector.engine.null import NullEngine
from inspector.engine.openvino import OpenVinoEngine, computes_bf16
from inspector.engine.tensorrt import TensorRtEngine

ASSETS = Path(__file__).resolve().parents[1] / "assets"
ONNX = ASSETS / "tiny.onnx"
KINDS = ["null", "openvino-fp32", "openvino-bf16", "tensorrt-double", "guarded"]


def _tensorrt_double() -> Engine:
    spec = importlib.util.spec_from_file_location("gpu_double", ASSETS / "gpu_double.py")
    assert spec is not None
    assert spec.loader is not None
    double = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = double
    spec.loader.exec_module(double)
    manifest, gpu = new_manifest(read_network(ONNX), ASSETS), double.HostGpu()
    return TensorRtEngine(manifest, double.HostPlan(manifest, gpu), gpu)


def _openvino(precision: str) -> Engine:
    if precision == "bf16" and not computes_bf16():
        pytest.skip("this CPU has no bf16 arithmetic")
    network = read_network(ONNX)
    manifest = msgspec.structs.replace(new_manifest(network, ASSETS), precision=precision, stages=network.stages(precision))  # type: ignore[arg-type]
    return OpenVinoEngine(manifest, ONNX)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    makers: dict[str, Callable[[], Engine]] = {
        "null": lambda: NullEngine(read_network(ONNX).recipe),
        "openvino-fp32": lambda: _openvino("fp32"),
        "openvino-bf16": lambda: _openvino("bf16"),
        "tensorrt-double": _tensorrt_double,
        "guarded": lambda: GuardedEngine(lambda: _openvino("fp32")),
    }
    return makers[request.param]


def picture(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (1, 64, 64), dtype=np.uint8)


def test_it_is_an_engine(make: Callable[[], Engine]) -> None:
    with make() as engine:
        assert isinstance(engine, Engine)
        assert engine.in_flight >= 2
        assert engine.budget_ms == engine.manifest.budget_ms > 0
        assert len(engine.hash) == 64


def test_outputs_are_as_the_manifest_says(make: Callable[[], Engine]) -> None:
    with make() as engine:
        outputs = engine.collect(engine.submit(picture(0)))
        for spec in engine.manifest.outputs:
            assert outputs[spec.name].shape == spec.shape
            assert outputs[spec.name].dtype == np.dtype(spec.dtype)
        assert outputs["converged"].tolist() == [1]


def test_full_flight_in_any_order_gives_what_one_at_a_time_gives(make: Callable[[], Engine]) -> None:
    with make() as engine:
        pictures = [picture(seed) for seed in range(engine.in_flight)]
        alone = [engine.collect(engine.submit(image)) for image in pictures]
        tickets = [engine.submit(image) for image in pictures]
        together = [engine.collect(ticket) for ticket in reversed(tickets)][::-1]
        for one, other in zip(alone, together, strict=True):
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])


def test_returned_arrays_are_the_callers_to_keep(make: Callable[[], Engine]) -> None:
    with make() as engine:
        first = engine.collect(engine.submit(picture(1)))
        kept = {name: value.copy() for name, value in first.items()}
        for seed in range(2, 5):
            engine.collect(engine.submit(picture(seed)))
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)
        first[name][:] = 0  # writable, and after closing


def test_more_than_fits_is_refused_and_does_no_harm(make: Callable[[], Engine]) -> None:
    with make() as engine:
        tickets = [engine.submit(picture(seed)) for seed in range(engine.in_flight)]
        with pytest.raises(EngineError, match="in flight already"):
            engine.submit(picture(9))
        for ticket in tickets:
            assert engine.collect(ticket)
        assert engine.collect(engine.submit(picture(9)))


def test_a_ticket_counts_once_and_only_here(make: Callable[[], Engine]) -> None:
    with make() as engine:
        ticket = engine.submit(picture(0))
        engine.collect(ticket)
        for wrong in (ticket, Ticket(12345, 0)):
            with pytest.raises(EngineError, match="not in flight"):
                engine.collect(wrong)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 64, 63), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((1, 64, 64), np.float32),
        np.zeros((1, 64, 128), np.uint8)[:, :, ::2],
    ],
    ids=["width", "channels", "dtype", "strided"],
)
def test_an_image_that_does_not_fit_is_refused(make: Callable[[], Engine], image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with make() as engine, pytest.raises(EngineError, match="was given to an engine"):
        engine.submit(image)


def test_closing_is_idempotent_and_works_with_images_in_flight(make: Callable[[], Engine]) -> None:
    engine = make()
    engine.submit(picture(0))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(picture(0))
