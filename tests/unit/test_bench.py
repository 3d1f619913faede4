"""`edgetrain bench`: what is compared, what is reported, and that the rival is worth beating."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from edgetrain.bench import cli, measure, step
from edgetrain.bench.measure import Request, Sample, Stopwatch, memory_baseline, peak_bytes
from edgetrain.bench.networks import convolves, find_network, tiny
from edgetrain.bench.record import machine, write_record
from edgetrain.bench.step import (
    COMPILED,
    COMPILED_IMAGES,
    EAGER,
    EAGER_IMAGES,
    Comparison,
    StepReport,
    compare,
)
from edgetrain.errors import ConfigError, WorkerError
from edgetrain.model import Model
from edgetrain.models import MODELS
from edgetrain.ops import OPS, BatchNorm, Conv2d, Flatten, Linear, Sign, SoftmaxCrossEntropy

MEBIBYTE = 1 << 20
PEAK_SLACK = MEBIBYTE // 2
"""The kernel counts resident pages in batches a processor, and Python takes some meanwhile."""
REQUEST = Request("mlp", 100, 1)
OURS = Sample(0.5, 2 * MEBIBYTE, 2 * MEBIBYTE - 1024, "avx2")
has_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")

Ask = Callable[[str, Request], Sample]


def asker(rivals: dict[str, Sample], asked: list[str] | None = None) -> Ask:
    """Return an ask() that answers from a table; a variant not in it fails."""

    def ask(module: str, request: Request) -> Sample:
        if asked is not None:
            asked.append(request.variant or module)
        if module == "ours":
            return OURS
        if request.variant not in rivals:
            raise WorkerError(f"measuring {request.variant} failed: no compiler")
        return rivals[request.variant]

    return ask


EAGER_SAMPLES = {
    "eager-loop": Sample(8.0, 9 * MEBIBYTE),
    "eager-foreach": Sample(6.0, 8 * MEBIBYTE),
    "eager-fused": Sample(5.0, 10 * MEBIBYTE),
}


@has_torch
class TestCompare:
    def test_the_fastest_variant_is_paired_with_ours_in_turn(self) -> None:
        asked: list[str] = []
        compiled = {name: Sample(4.0, 50 * MEBIBYTE) for name in COMPILED}
        comparison = Comparison(REQUEST, pairs=2)
        report = compare(comparison, ask=asker({**EAGER_SAMPLES, **compiled}, asked))
        fastest = COMPILED[0] if comparison.variants != EAGER else "eager-fused"
        assert tuple(asked[: -2 * 2]) == comparison.variants
        assert asked[-4:] == ["ours", fastest, "ours", fastest]
        assert len(asked) == comparison.processes
        assert report.torch is not None
        assert report.torch.variant == fastest

    def test_the_memory_is_that_of_the_leanest_variant(self) -> None:
        report = compare(Comparison(REQUEST), ask=asker(EAGER_SAMPLES))
        assert report.torch is not None
        assert (report.torch.variant, report.torch.step_ms) == ("eager-fused", 5.0)
        assert report.torch.peak_variant == "eager-foreach"
        assert report.ratio["step"] == 10.0
        assert report.ratio["peak"] == 4.0

    def test_a_variant_that_cannot_be_compiled_is_passed_over(self) -> None:
        report = compare(Comparison(REQUEST), ask=asker(EAGER_SAMPLES))
        assert report.torch is not None
        assert set(report.torch.tried) == set(EAGER)

    def test_an_eager_variant_that_fails_is_an_error(self) -> None:
        with pytest.raises(WorkerError, match="eager-loop"):
            compare(Comparison(REQUEST), ask=asker({}))

    def test_ratios_are_medians_of_pairs(self) -> None:
        ours = [replace(OURS, step_ms=ms) for ms in (1.0, 2.0, 4.0)]
        rival = [Sample(ms, MEBIBYTE) for ms in (10.0, 30.0, 32.0)]
        report = step.summarize(REQUEST, ours, rival, EAGER_SAMPLES)
        assert report.ratio["step"] == 10.0
        assert report.ours.step_ms == 2.0

    def test_a_network_of_convolutions_is_tried_in_both_layouts(self) -> None:
        comparison = Comparison(replace(REQUEST, network="cnv"))
        assert comparison.variants in (EAGER_IMAGES, EAGER_IMAGES + COMPILED_IMAGES)
        assert set(EAGER_IMAGES) == {"eager-fused", "eager-fused-nhwc"}

    def test_no_pair_begins_past_the_limit_but_the_first(self) -> None:
        report = compare(Comparison(REQUEST, pairs=5, limit=-1.0), ask=asker(EAGER_SAMPLES))
        assert report.pairs == 1

    def test_progress_names_every_process(self) -> None:
        told: list[str] = []
        comparison = Comparison(REQUEST, pairs=3)
        compare(comparison, told.append, asker(EAGER_SAMPLES))
        assert len(told) == comparison.processes


class TestWithoutRival:
    def test_ours_alone(self) -> None:
        report = compare(Comparison(REQUEST, "none", pairs=2), ask=asker({}))
        assert report.torch is None
        assert set(report.ratio) == {"planned"}

    def test_json_has_the_public_keys(self) -> None:
        report = compare(Comparison(REQUEST, "none", pairs=1), ask=asker({}))
        found = json.loads(report.to_json())
        keys = {
            "network",
            "batch",
            "threads",
            "mode",
            "gradient",
            "recompute",
            "isa",
            "pairs",
            "ours",
        }
        keys |= {"ours", "torch", "ratio"}
        assert set(found) == keys
        assert set(found["ours"]) == {"step_ms", "peak_growth_bytes", "planned_bytes"}

    def test_missing_torch_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(step, "find_spec", lambda name: None)  # noqa: ARG005
        with pytest.raises(ConfigError, match=r"pip install \"edgetrain\[torch\]\""):
            Comparison(REQUEST, "torch")
        assert Comparison(REQUEST, "none").processes == 5

    @pytest.mark.parametrize(
        ("request_", "against", "words"),
        [
            (replace(REQUEST, network="mpl"), "none", "did you mean 'mlp'"),
            (replace(REQUEST, batch=1), "none", "--batch 1 is too small"),
            (replace(REQUEST, threads=0), "none", "--threads 0 is too small"),
            (replace(REQUEST, mode="float"), "none", "--mode 'float'"),
            (REQUEST, "jax", "--against 'jax'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, request_: Request, against: str, words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            Comparison(request_, against)


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
        def measured(comparison: Comparison, tick: Callable[[str], None]) -> StepReport:
            return compare(comparison, tick, asker(EAGER_SAMPLES))

        monkeypatch.setattr(cli, "compare", measured)
        result = CliRunner().invoke(cli.app, ["step", "mlp", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    def test_json_alone_on_standard_output(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = json.loads(self.run(monkeypatch, "--against", "none", "--json", "-"))
        assert found["ours"]["step_ms"] == OURS.step_ms

    @has_torch
    def test_the_table_says_which_variant_won(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.run(monkeypatch, "--against", "torch")
        assert "fastest: eager-fused" in shown
        assert "10.0x" in shown


def grown(before: str, after: str) -> int:
    """Return the growth of the peak by a statement, in a process of its own.

    A process that has run other tests holds freed memory, which an allocation may take again.
    """
    code = (
        "from edgetrain.bench.measure import memory_baseline, peak_bytes\n"
        f"{before}\nbase = memory_baseline()\n{after}\nprint(peak_bytes() - base)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


class TestMeasuring:
    def test_growth_of_the_peak_is_what_was_allocated(self) -> None:
        size = 16 * MEBIBYTE
        growth = grown("", f"held = bytearray(b'x' * {size})")
        held_and_copied = 2 * size
        assert size - PEAK_SLACK <= growth <= held_and_copied + PEAK_SLACK

    def test_a_new_baseline_forgets_the_old_peak(self) -> None:
        assert grown(f"held = b'x' * {16 * MEBIBYTE}; del held", "") < MEBIBYTE

    def test_every_step_counts_and_the_median_is_one_of_them(self) -> None:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        watch = Stopwatch()
        watch.run(count, 0.0)
        assert steps == 30  # ten to warm up, twenty to time
        assert min(watch.taken[:20]) <= watch.median_ms / 1e3 <= max(watch.taken[:20])

    def test_the_watch_takes_no_memory_while_it_runs(self) -> None:
        watch = Stopwatch()
        watch.run(lambda: None, 0.0)
        base = memory_baseline()
        watch.run(lambda: None, 0.2)
        assert watch.steps > 1000
        assert peak_bytes() - base < PEAK_SLACK

    def test_slow_steps_are_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure, "PATIENCE", 0.0)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        watch = Stopwatch()
        watch.run(count, 0.0)
        assert (steps, watch.steps) == (6, 3)

    @pytest.mark.parametrize("name", MODELS)
    def test_networks_are_models_found_by_name(self, name: str) -> None:
        model = find_network(name)
        assert model == MODELS[name]()
        assert convolves(model) == (name != "mlp")

    @pytest.mark.parametrize("name", MODELS)
    def test_a_tiny_network_has_the_same_kinds_of_layers(self, name: str) -> None:
        model = find_network(name)
        small = tiny(model)
        assert {op.name for op in small.layers} == {op.name for op in model.layers}
        assert {op.to_fields().get("outputs", 0) for op in small.layers} <= {0, 2, 8, 32}

    def test_a_tiny_depthwise_network_is_depthwise(self) -> None:
        layers = (Conv2d(64, training="int8"), BatchNorm(), Sign(), Conv2d(64, groups=64))
        end = (BatchNorm(), Sign(), Flatten(), Linear(3), BatchNorm(), SoftmaxCrossEntropy())
        small = tiny(Model((8, 8, 3), (*layers, *end)))
        assert [op.to_fields().get("groups") for op in small.layers[:4]] == [1, None, None, 32]

    def test_a_tiny_network_of_groups_fits_its_data(self) -> None:
        layers = (Conv2d(6, groups=6), BatchNorm(), Sign(), Flatten(), Linear(3))
        small = tiny(Model((1, 1, 6), (*layers, BatchNorm(), SoftmaxCrossEntropy())))
        assert small.input_shape == (1, 1, 6)
        assert [op.to_fields().get("groups") for op in small.layers[:2]] == [1, None]

    def test_records_name_machine_and_date(self, tmp_path: Path) -> None:
        path = tmp_path / "results" / "x.json"
        write_record(path, "edgetrain bench step", {"answer": 42})
        found = json.loads(path.read_text())
        assert found["machine"] == machine()
        assert found["answer"] == 42
        assert len(found["date"]) == len("2026-01-31")


class TestSides:
    """The two processes that measure, for real."""

    def test_ours_reports_its_plan(self) -> None:
        sample = step.run_child("ours", replace(REQUEST, seconds=0.0))
        assert sample.step_ms > 0
        assert sample.peak_growth_bytes >= 0.9 * sample.planned_bytes > 0
        assert sample.isa

    @has_torch
    def test_the_rival_reports_growth(self) -> None:
        weights = sum(a * b for a, b in pairwise((784, *(256,) * 4, 10)))
        sample = step.run_child("rival", replace(REQUEST, seconds=0.0, variant="eager-fused"))
        # Weights, gradients and Adam's two moments, in float32.
        assert sample.peak_growth_bytes > 4 * 4 * weights

    def test_a_failing_process_leaves_its_last_words(self) -> None:
        with pytest.raises(WorkerError, match="did you mean 'mlp'"):
            step.run_child("ours", replace(REQUEST, network="mpl"))


@pytest.fixture(scope="module")
def rival() -> ModuleType:
    pytest.importorskip("torch")
    return importlib.import_module("edgetrain.bench.rival")


@pytest.fixture(scope="module")
def rival_network() -> ModuleType:
    pytest.importorskip("torch")
    return importlib.import_module("edgetrain.bench.rival_network")


class TestRival:
    def test_the_variants_are_those_that_are_tried(self, rival: ModuleType) -> None:
        assert set(rival.VARIANTS) == {*EAGER, *COMPILED, *EAGER_IMAGES, *COMPILED_IMAGES}

    def test_eager_variants_take_the_same_steps(self, rival: ModuleType) -> None:
        torch = rival.torch
        results = []
        for name in EAGER:
            torch.manual_seed(0)
            model = rival.binary_mlp((20, 16, 3))
            run = rival.make_step(model, rival.VARIANTS[name])
            x, y = torch.randn(8, 20), torch.arange(8) % 3
            for _ in range(3):
                run(x, y)
            results.append(torch.cat([weights.flatten() for weights in rival.latents(model)]))
        for other in results[1:]:
            torch.testing.assert_close(results[0], other)

    def test_weights_and_activations_are_signs(self, rival: ModuleType) -> None:
        torch = rival.torch
        model = rival.binary_mlp((20, 16, 3))
        seen = []
        model[2].register_forward_hook(lambda _, __, output: seen.append(output))
        model(torch.randn(8, 20))
        assert set(seen[0].unique().tolist()) == {-1.0, 1.0}
        signs = rival.SignOfLatent.apply(torch.tensor([-0.5, 0.0, 2.0]))
        assert signs.tolist() == [-1.0, 1.0, 1.0]

    def test_the_gradient_passes_where_the_activation_is_within_one(
        self, rival: ModuleType
    ) -> None:
        x = rival.torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
        rival.SignOfActivation.apply(x).sum().backward()
        assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]

    def test_latents_stay_within_one(self, rival: ModuleType) -> None:
        weights = [rival.torch.tensor([[-3.0, 0.5]]), rival.torch.tensor([[1.5]])]
        rival.clip_latents(weights)
        assert [part.tolist() for part in weights] == [[[-1.0, 0.5]], [[1.0]]]

    @pytest.mark.parametrize("make", ["binary_mlp", "float_mlp"])
    def test_it_learns_what_can_be_learnt(self, rival: ModuleType, make: str) -> None:
        torch = rival.torch
        torch.manual_seed(0)
        y = torch.arange(201) % 3  # the last of the batches holds one example
        x = torch.randn(201, 20) + 3 * torch.eye(3, 20)[y]
        local = rival.Local(batch=20, learning_rate=1e-2, final_rate=0.02, epochs=10)
        model = rival.train(
            getattr(rival, make)((20, 32, 3)), x, y, local, torch.Generator().manual_seed(0)
        )
        assert rival.accuracy(model, x, y) > 0.9


def convolution(outputs: int, kernel: int = 3, stride: int = 1, padding: str = "same") -> Any:
    """Return the fields of a two-dimensional convolution."""
    return {
        "op": "conv2d",
        "outputs": outputs,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
    }


NORM, SIGN, POOL = {"op": "batch_norm"}, {"op": "sign"}, {"op": "max_pool", "size": 2}
IMAGES = [
    *(convolution(8), NORM, SIGN, convolution(16, padding="valid"), POOL, NORM, SIGN),
    *({"op": "flatten"}, {"op": "linear", "outputs": 3}, NORM, {"op": "softmax_cross_entropy"}),
]
AVERAGE = {"op": "avg_pool", "size": 2}
RESIDUAL = [
    *(convolution(8), NORM, SIGN, convolution(8), NORM, SIGN, {"op": "xnor", "back": 1}),
    *(convolution(8), AVERAGE, {"op": "add", "back": 2, "gain": 3}, NORM, SIGN),
    *(convolution(16, stride=2), {"op": "add", "back": 1, "gain": 3}, NORM, SIGN),
    *(convolution(16), NORM, SIGN, {"op": "or", "back": 1}, {"op": "global_average_pool"}),
    *({"op": "linear", "outputs": 3}, NORM, {"op": "softmax_cross_entropy"}),
]


class TestRivalOfImages:
    def test_every_op_is_known(self, rival_network: ModuleType) -> None:
        assert set(OPS) == {fields["op"] for fields in (*IMAGES, *RESIDUAL)} | {"conv1d"}
        chain = rival_network.module_chain(IMAGES, (10, 10, 3))
        assert len(chain) == len(IMAGES) - 1  # the loss is not of the network
        with pytest.raises(ConfigError, match="has no dropout"):
            rival_network.module_chain([{"op": "dropout"}], (1, 1, 4))

    def test_int8_layers_stay_real_where_asked(self, rival_network: ModuleType) -> None:
        torch = importlib.import_module("torch")
        weighty = (torch.nn.Conv2d, torch.nn.Linear)
        for keep_real in (False, True):
            network = rival_network.binary_network(find_network("har_cnn"), keep_real=keep_real)
            kinds = [type(one).__name__ for one in network.modules() if isinstance(one, weighty)]
            outer = ["Conv2d", "Linear"] if keep_real else ["BinaryConv2d", "BinaryLinear"]
            assert kinds == [outer[0], "BinaryConv2d", "BinaryConv2d", outer[1]]

    def test_groups_do_not_meet(self, rival_network: ModuleType) -> None:
        modules, shape = rival_network.convolution({**convolution(6), "groups": 6}, (5, 5, 6))
        assert modules[0].weight.shape == (6, 1, 3, 3)
        assert shape == (5, 5, 6)

    def test_shortcuts_read_what_left_earlier_blocks(self, rival_network: ModuleType) -> None:
        torch = importlib.import_module("torch")
        chain = rival_network.module_chain(RESIDUAL, (10, 10, 3))
        assert len(chain) == len(RESIDUAL) - 1
        assert chain(torch.randn(4, 3, 10, 10)).shape == (4, 3)
        a, b = torch.tensor([-1.0, -1, 1, 1]), torch.tensor([-1.0, 1, -1, 1])
        for name, expected in (("xnor", [1, -1, -1, 1]), ("or", [-1, 1, 1, 1])):
            assert rival_network.Shortcut(name, 1, 1)(a, b).tolist() == expected
        sums, bits = torch.zeros(1, 4, 2, 2), torch.arange(18.0).reshape(1, 2, 3, 3)
        added = rival_network.Shortcut("add", 1, 2)(sums, bits)
        assert added[0, 0].tolist() == added[0, 2].tolist() == [[0, 4], [12, 16]]

    @pytest.mark.parametrize("size", [4, 5, 9])
    @pytest.mark.parametrize("kernel", [1, 2, 3, 4])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("padding", ["same", "valid"])
    def test_a_convolution_gives_the_shape_of_ours(
        self, rival_network: ModuleType, size: int, kernel: int, stride: int, padding: str
    ) -> None:
        torch = importlib.import_module("torch")
        fields = convolution(6, kernel, stride, padding)
        modules, shape = rival_network.convolution(fields, (size, size + 1, 2))
        y = torch.nn.Sequential(*modules)(torch.randn(1, 2, size, size + 1))
        given = [size, size + 1]
        expected = [
            -(-each // stride) if padding == "same" else (each - kernel) // stride + 1
            for each in given
        ]
        assert tuple(y.shape) == (1, 6, *expected)
        assert shape == (*expected, 6)

    def test_a_sequence_is_an_image_of_height_one(self, rival_network: ModuleType) -> None:
        torch = importlib.import_module("torch")
        layers = [
            *({**convolution(8, 5), "op": "conv1d"}, POOL, NORM, SIGN, {"op": "flatten"}),
            *({"op": "linear", "outputs": 4}, NORM),
        ]
        chain = rival_network.module_chain(layers, (1, 16, 3))
        assert chain(torch.randn(2, 3, 1, 16)).shape == (2, 4)
        assert chain[0].weight.shape == (8, 3, 1, 5)

    def test_both_layouts_take_the_same_steps(
        self, rival: ModuleType, rival_network: ModuleType
    ) -> None:
        torch = rival.torch
        results = []
        for name in EAGER_IMAGES:
            torch.manual_seed(0)
            model = rival_network.module_chain(IMAGES, (10, 10, 3))
            x, y = torch.randn(6, 3, 10, 10), torch.arange(6) % 3
            if rival.VARIANTS[name].channels_last:
                model = model.to(memory_format=torch.channels_last)
                x = x.contiguous(memory_format=torch.channels_last)
            rival.make_step(model, rival.VARIANTS[name])(x, y)
            parts = [weights.contiguous().flatten() for weights in rival.latents(model)]
            assert len(parts) == 3
            results.append(torch.cat(parts))
        torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", MODELS)
    def test_it_is_built_from_the_model(
        self, rival: ModuleType, rival_network: ModuleType, name: str
    ) -> None:
        model = find_network(name)
        variant = rival.VARIANTS[EAGER_IMAGES[0]]
        x, y = rival.examples(model, 2, variant)
        network = rival.build(model, variant)
        with rival.torch.no_grad():
            assert network(x).shape == (2, model.classes)
        assert y.tolist() == [0, 1]
        assert rival_network.example_shape(model) == tuple(x.shape[1:])
        outputs = [layer.weight.shape[0] for layer in network if hasattr(layer, "in_features")]
        assert outputs == [op.outputs for op in model.layers if op.name == "linear"]
