"""The choice by measurement: off unless asked for, never for the slower, one measurement for all processes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from harness.ops import DepthwiseConv2d, autotune, depthwise_conv2d
from harness.ops.autotune import AutotuneCache, Tuner, default_folder, pick_algorithm
from harness.ops.autotune_measure import (
    AlgorithmTimes,
    ConvCall,
    _estimated_bytes,
    _fastest,
    peak_bytes,
    time_algorithms,
)
from harness.ops.dispatch import ALGORITHMS, STOCK, choose_algorithm
from harness.ops.geometry import Algorithm, Window
from harness.ops.timing import ROUNDS, TRUSTED_ROUNDS, min_seconds

CPU = torch.device("cpu")
PADDED = Window.of(1, 2, 1)
Run = Callable[[Tensor, Tensor, Tensor | None, Window], Tensor]


def call(
    n: int = 2,
    *,
    c: int = 4,
    side: int = 8,
    k: int = 5,
    window: Window = PADDED,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
    gradients: bool = True,
    biased: bool = False,
) -> ConvCall:
    x = torch.ones(n, c, side, side, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.ones(c, 1, k, k, dtype=dtype)
    bias = torch.ones(c, dtype=dtype) if biased else None
    return ConvCall(x.requires_grad_(gradients), weight.requires_grad_(gradients), bias, window)


def add(monkeypatch: pytest.MonkeyPatch, name: str, run: Run) -> None:
    monkeypatch.setitem(ALGORITHMS, name, Algorithm(run=run, fits=lambda *_: True))


def slow(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    time.sleep(0.05)
    return STOCK.run(x, weight, bias, window)


def plant(folder: Path, one: ConvCall, winner: str) -> None:
    """As if somebody had measured that."""
    AutotuneCache(folder, CPU).put(one.kind(), AlgorithmTimes(winner, {winner: 1.0}), ALGORITHMS)


def test_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = call()
    assert default_folder().is_relative_to(tmp_path)
    assert pick_algorithm(*one) == choose_algorithm(one.x, one.weight, one.window)
    assert not list(tmp_path.iterdir())


def test_a_relative_cache_folder_is_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert default_folder().is_relative_to(Path.home() / ".cache")


def test_on_for_a_while_or_until_switched_off(tmp_path: Path) -> None:
    one = call()
    rule = pick_algorithm(*one)
    other = next(name for name in one.candidates() if name != rule)
    plant(tmp_path, one, other)
    with autotune(folder=tmp_path):
        assert pick_algorithm(*one) == other
        with autotune(False):
            assert pick_algorithm(*one) == rule
        assert pick_algorithm(*one) == other
    assert pick_algorithm(*one) == rule
    with pytest.raises(KeyError), autotune(folder=tmp_path):
        raise KeyError
    assert pick_algorithm(*one) == rule
    autotune(folder=tmp_path)
    assert pick_algorithm(*one) == other
    autotune(False)
    assert pick_algorithm(*one) == rule


@pytest.mark.parametrize("gradients", [False, True])
def test_measured_once_and_kept_for_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradients: bool
) -> None:
    calls = []

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        calls.append(x.requires_grad)
        return slow(x, weight, bias, window)

    add(monkeypatch, "counted", counted)
    one = call(gradients=gradients)
    tuner = Tuner(tmp_path)
    winner = tuner.winner(one)
    assert set(calls) == {gradients}
    measurements = len(calls)
    assert tuner.winner(one) == Tuner(tmp_path).winner(one) == winner
    assert len(calls) == measurements
    (entry,) = json.loads(AutotuneCache(tmp_path, CPU).path.read_text())["calls"].values()
    assert entry["winner"] == winner != "counted"
    assert set(entry["ms"]) == set(one.candidates())
    assert entry["ms"]["counted"] > 50


def test_the_fastest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "instant", lambda x, weight, bias, window: x * weight[:, 0, 0, 0, None, None])  # noqa: ARG005
    for name in [name for name in ALGORITHMS if name != "instant"]:
        add(monkeypatch, name, slow)
    assert time_algorithms(call(), call().candidates()).winner == "instant"


def test_another_than_stock_wins_only_clearly() -> None:
    assert _fastest({"stock": 1.0, "other": 0.99}) == "stock"
    assert _fastest({"stock": 1.0, "other": 0.9}) == "other"
    assert _fastest({"stock": 1.0, "other": 2.0}) == "stock"
    assert _fastest({"some": 1.0, "other": 0.99}) == "other"


@pytest.mark.parametrize(
    ("lame_s", "samples"), [(0.1, 1), (0.02, TRUSTED_ROUNDS), (0.011, ROUNDS)], ids=["long", "short", "not much slower"]
)
def test_what_is_hopeless_is_timed_no_more(monkeypatch: pytest.MonkeyPatch, lame_s: float, samples: int) -> None:
    now, counts = [0.0], {"quick": 0, "lame": 0}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def step(name: str, seconds: float) -> None:
        counts[name] += 1
        now[0] += seconds * (1 + 1 / counts[name])

    least = min_seconds({"quick": lambda: step("quick", 0.006), "lame": lambda: step("lame", lame_s)}, CPU)
    assert counts == {"quick": ROUNDS, "lame": samples}
    assert least["lame"] == pytest.approx(lame_s * (1 + 1 / samples)), "the least of the samples"


def test_short_steps_are_repeated_within_a_sample() -> None:
    counts = [0]

    def step() -> None:
        counts[0] += 1

    min_seconds({"short": step}, CPU)
    assert counts[0] > 100 * ROUNDS


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: you tried")],
    ids=repr,
)
def test_who_runs_out_of_memory_is_skipped(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object) -> Tensor:
        raise error

    add(monkeypatch, "large", fails)
    measured = time_algorithms(call(), ["stock", "large"])
    assert measured.winner == "stock" and set(measured.ms) == {"stock"}
    assert time_algorithms(call(), ["large"]) == AlgorithmTimes(choose_algorithm(*call()[:2], PADDED), {}), (
        "nothing was measured"
    )


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("a mistake")

    add(monkeypatch, "wrong", fails)
    with pytest.raises(RuntimeError, match="a mistake"):
        time_algorithms(call(), ["stock", "wrong"])


def test_who_would_take_too_much_memory_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def memory_hungry(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        seen.append(type(x))
        return STOCK.run(x, weight, bias, window) + x.new_empty(1 << 40)[0]

    add(monkeypatch, "hog", memory_hungry)
    assert "hog" not in time_algorithms(call(), ["stock", "hog"]).ms
    assert seen and Tensor not in seen


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("gradients", [False, True])
def test_memory_is_foreseen(name: str, gradients: bool) -> None:
    one = call(4, c=8, side=16, k=13, window=Window.of(1, 6, 1), gradients=gradients, biased=True)
    if not ALGORITHMS[name].fits(one.x, one.weight, one.window):
        pytest.skip("does not take this call")
    one.step(name)()
    foreseen, held = _estimated_bytes(one, name), peak_bytes(one.step(name))
    assert held / 2 <= foreseen <= 1.05 * held, (
        "half: some of PyTorch's operators, as `fold`, return more than they say"
    )


def test_peak_bytes_counts_what_is_held_at_one_time() -> None:
    x = torch.ones(1000)
    assert peak_bytes(lambda: x + 1) == 4000
    assert peak_bytes(lambda: (x + 1) + (x + 2)) == 12000
    assert peak_bytes(lambda: [(x + i).sum() for i in range(5)]) < 5000
    assert peak_bytes(lambda: x[10:]) == peak_bytes(lambda: x.add_(1)) == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\x00", b'{"calls": 3}', b'{"calls": {"KIND": {"winner": "stock"}}}', b"[" * 100_000],
    ids=lambda content: repr(content[:40]),
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    one = call()
    winners = AutotuneCache(tmp_path, CPU)
    winners.path.write_bytes(content.replace(b"KIND", one.kind().encode()))
    assert winners.get(one.kind(), one.candidates()) is None
    winner = Tuner(tmp_path).winner(one)
    times = winners.get(one.kind(), one.candidates())
    assert times is not None and times.winner == winner
    assert not list(tmp_path.glob("*.partial"))


def test_a_winner_that_cannot_take_the_call_is_measured_again(tmp_path: Path) -> None:
    one = call()
    plant(tmp_path, one, "an algorithm of old")
    assert Tuner(tmp_path).winner(one) in one.candidates()
    assert AutotuneCache(tmp_path, CPU).get(one.kind(), one.candidates()) is not None


def test_without_a_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = call()
    tuner = Tuner(tmp_path / "file" / "folder")
    assert tuner.winner(one) == tuner.winner(one) in one.candidates()


WRITER = """
import sys
from pathlib import Path
import torch
from harness.ops.autotune_measure import AlgorithmTimes
from harness.ops.autotune import AutotuneCache

winners, me = AutotuneCache(Path(sys.argv[1]), torch.device("cpu")), sys.argv[2]
for i in range(10):
    winners.put(f"{me} {i}", AlgorithmTimes("stock", {"stock": 1.0}), ["stock"])
print(winners.put("common", AlgorithmTimes("stock", {me: 1.0}), ["stock"]).ms)
"""


@pytest.mark.long
def test_several_processes_at_once_lose_nothing_and_agree(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(me)], stdout=subprocess.PIPE, text=True)
        for me in range(2)
    ]
    outputs = {process.communicate(timeout=300)[0] for process in started}
    kinds = {f"{me} {i}" for me in range(2) for i in range(10)} | {"common"}
    assert set(json.loads(AutotuneCache(tmp_path, CPU).path.read_text())["calls"]) == kinds
    assert len(outputs) == 1 and "1.0" in outputs.pop()


def test_calls_of_another_kind_are_measured_on_their_own() -> None:
    kinds = [
        call(),
        call(3),
        call(c=6),
        call(side=9),
        call(k=3),
        call(dtype=torch.float64),
        call(layout=torch.channels_last),
        call(gradients=False),
        call(biased=True),
        *(call(window=Window.of(*numbers)) for numbers in ((2, 2, 1), (1, 3, 1), (1, 4, 2))),
    ]
    assert len({one.kind() for one in kinds}) == len(kinds)
    assert call().kind() == call().kind()
    with torch.no_grad():
        assert call().kind() == call(gradients=False).kind()
    only_x = call()._replace(weight=call().weight.detach())
    assert only_x.kind() != call().kind()


def test_the_stock_operator_is_always_a_candidate() -> None:
    assert all(call(k=k).candidates()[0] == "stock" for k in (1, 3, 5))
    assert call(window=Window.of(3, 20, 2)).candidates()[0] == "stock"


def test_what_cannot_be_measured_goes_by_the_rule_of_thumb(tmp_path: Path) -> None:
    one = call()
    rule = pick_algorithm(*one)
    other = next(name for name in one.candidates() if name != rule)
    plant(tmp_path, one, other)
    picked: list[str] = []

    def look(x: Tensor) -> Tensor:
        picked.append(pick_algorithm(x, *one[1:]))
        return x.sum()

    with autotune(folder=tmp_path):
        look(one.x)
        torch.func.grad(look)(one.x.detach())
        torch.use_deterministic_algorithms(True)
        try:
            look(one.x)
        finally:
            torch.use_deterministic_algorithms(False)
        with FakeTensorMode() as fake:
            look(fake.from_tensor(one.x))
        look(one.x)
        meta, empty = one.x.to("meta"), one.x[:0]
        assert pick_algorithm(meta, one.weight.to("meta"), None, PADDED) == pick_algorithm(empty, *one[1:]) == "stock"
    assert picked == [other, rule, rule, rule, other]


def test_tuning_leaves_no_trace(tmp_path: Path) -> None:
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 1, 5, 5, requires_grad=True)
    state = torch.get_rng_state()
    with autotune(folder=tmp_path):
        y = depthwise_conv2d(x, weight, padding=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert weight.grad is None
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=2, groups=4), rtol=1e-5, atol=1e-5)
    with torch.no_grad(), autotune(folder=tmp_path):
        assert not depthwise_conv2d(x, weight, padding=2).requires_grad


@pytest.mark.parametrize("reentrant", [False, True])
def test_tuning_inside_a_checkpoint(tmp_path: Path, reentrant: bool) -> None:
    model, x = DepthwiseConv2d(4, 7, padding=3).double(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    x.requires_grad_()
    with autotune(folder=tmp_path):
        torch.autograd.backward(checkpoint(model, x, use_reentrant=reentrant).square().sum())
    expected = torch.autograd.grad(model(x).square().sum(), (x, model.weight))
    assert list(tmp_path.glob("*.json")), "something was measured"
    torch.testing.assert_close((x.grad, model.weight.grad), expected, rtol=1e-10, atol=1e-10)
