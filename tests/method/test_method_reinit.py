"""Soft re-initialisation."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from hf_relearn.method import InitialWeights, interpolate_buffers_, soft_reinit_, soft_reinit_with_distance_

ALPHAS = [1e-7, 0.1, 1 / 3, 0.6043677771176636, 0.9, 1 - 1e-9]


class LazyMapping(Mapping):
    """Initial values that remember what was read."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.read = []

    def __getitem__(self, name):
        self.read.append(name)
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


def make_model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(33, 65), nn.BatchNorm1d(65), nn.Linear(65, 7))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model


def values(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors}


def assert_formula(moved, before, initial, alpha):
    """Agreement with (1 - α)θ + αθ⁰ to one unit in the last place of the larger of the two."""
    compute = torch.promote_types(moved.dtype, torch.float32)
    exact = (1 - alpha) * before.double() + alpha * initial.double()
    largest = torch.maximum(before.to(compute).abs(), initial.to(compute).abs())
    unit = torch.nextafter(largest, torch.tensor(float("inf"), dtype=compute)) - largest
    slack = unit.double() + (0 if compute == torch.float32 else 2 * unit.double())  # the exact value is rounded too
    if moved.dtype != compute:
        slack = slack + exact.abs() * torch.finfo(moved.dtype).eps / 2
    assert ((moved.double() - exact).abs() <= slack).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("move", [soft_reinit_, soft_reinit_with_distance_])
def test_agrees_with_the_formula(alpha, dtype, move):
    model, initial = make_model().to(dtype), values(make_model(1).named_parameters())
    before = values(model.named_parameters())
    move(model, initial, alpha)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert_formula(
            parameter.detach(), before[name], initial[name].to(dtype if dtype.itemsize == 8 else None), alpha
        )


@pytest.mark.parametrize("alpha", [0.1, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_and_small_tensors_move_alike_however_they_are_cut(alpha, dtype):
    """A shard's part, or a tensor beside others, gets the bits that the whole gets."""
    torch.manual_seed(0)
    large = nn.ParameterDict({"whole": torch.randn(700, 801).to(dtype)})  # several chunks, the last one shorter
    rows = nn.ParameterDict({f"row{i}": large["whole"].detach()[i].clone() for i in range(700)})
    initial = torch.randn(700, 801)
    distances = [
        soft_reinit_with_distance_(large, {"whole": initial}, alpha),
        soft_reinit_with_distance_(rows, {f"row{i}": initial[i] for i in range(700)}, alpha),
    ]
    assert torch.equal(large["whole"], torch.stack([rows[f"row{i}"] for i in range(700)]))
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_tensors_without_one_run_of_memory():
    model = nn.Conv2d(4, 6, 3, bias=False).to(memory_format=torch.channels_last)
    before, initial = model.weight.detach().clone(), torch.rand(3, 3, 4, 6).permute(3, 2, 0, 1)
    soft_reinit_(model, {"weight": initial}, 0.3)
    assert torch.equal(model.weight, torch.lerp(before, initial, 0.3))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ends_of_the_way_are_exact(dtype):
    model, initial = make_model().to(dtype), values(make_model(1).named_parameters())
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
        model[0].weight[0, 1] = -0.0
    initial["0.bias"][0] = -0.0
    before = [p.detach().clone().view(torch.uint8) for p in model.parameters()]
    assert soft_reinit_with_distance_(model, initial, 0.0) == 0.0
    assert all(torch.equal(p.detach().view(torch.uint8), b) for p, b in zip(model.parameters(), before, strict=True))
    soft_reinit_(model, initial, 1.0)
    for name, parameter in model.named_parameters():
        expected = initial[name].to(dtype).view(torch.uint8)
        assert torch.equal(parameter.detach().view(torch.uint8), expected), name


def test_only_trained_parameters_move_and_buffers_stay():
    model, initial = make_model(), values(make_model(1).named_parameters())
    model[0].requires_grad_(False)
    del initial["0.weight"], initial["0.bias"]  # not needed either
    before, buffers = values(model.named_parameters()), values(model.named_buffers())
    soft_reinit_(model, initial, 0.5)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("0."), name
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_parameters_stay_leaves_of_the_same_optimizer_without_gradients():
    model = make_model()
    identities, pointers = [id(p) for p in model.parameters()], [p.data_ptr() for p in model.parameters()]
    soft_reinit_(model, values(make_model(1).named_parameters()), 0.5)
    assert [id(p) for p in model.parameters()] == identities
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert all(p.is_leaf and p.requires_grad and p.grad is None for p in model.parameters())


def test_tied_parameters_move_once():
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[1].weight = model[0].weight
    before, initial = model[0].weight.detach().clone(), torch.rand(5, 5)
    soft_reinit_(model, {"0.weight": initial, "1.weight": initial}, 0.25)
    assert torch.equal(model[1].weight, torch.lerp(before, initial, 0.25))


def test_initial_values_are_read_one_at_a_time_and_not_changed():
    tensors = values(make_model(1).named_parameters())
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    initial = LazyMapping(tensors)
    soft_reinit_(make_model(), initial, 0.5)
    assert initial.read == [name for name, _ in make_model().named_parameters()]
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_alpha_out_of_range_is_refused(alpha):
    for move in (soft_reinit_, soft_reinit_with_distance_, interpolate_buffers_):
        with pytest.raises(ValueError, match="alpha.*must be in"):
            move(make_model(), dict(make_model().state_dict()), alpha)


@pytest.mark.parametrize("kind", [dict, "file"])
def test_wrong_initial_values_are_refused_before_anything_moves(kind, tmp_path):
    model = make_model()
    before = values(model.named_parameters())
    missing, other = values(make_model(1).named_parameters()), values(make_model(1).named_parameters())
    del missing["2.bias"]
    other["2.bias"] = torch.zeros(8)
    if kind == "file":
        missing, other = InitialWeights.save(missing, tmp_path), InitialWeights.save(other, tmp_path)
    with pytest.raises(KeyError, match="parameter '2.bias' has no initial value"):
        soft_reinit_(model, missing, 0.5)
    with pytest.raises(ValueError, match=r"parameter '2.bias' has the shape \(7,\), but its initial value has \(8,\)"):
        soft_reinit_(model, other, 0.5)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_wrong_shape_of_a_lazy_mapping_is_named():
    tensors = values(make_model(1).named_parameters())
    tensors["0.bias"] = torch.zeros(1)  # would broadcast
    with pytest.raises(ValueError, match="'0.bias'"):
        soft_reinit_(make_model(), LazyMapping(tensors), 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_distance_is_the_one_moved(dtype):
    model, initial = make_model().to(dtype), values(make_model(1).named_parameters())
    before = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    distance = soft_reinit_with_distance_(model, initial, 0.01)
    moved = torch.cat([p.detach().double().flatten() for p in model.parameters()]) - before
    rounding = 1e-5 if dtype != torch.bfloat16 else 0.1  # the way of so small a step is mostly rounding there
    assert distance == pytest.approx(float(moved.norm() / before.norm()), rel=rounding)
    target = torch.cat([initial[name].double().flatten() for name, _ in model.named_parameters()])
    assert distance == pytest.approx(float(0.01 * (target - before).norm() / before.norm()), rel=1e-5)


def test_distance_at_the_edges():
    model = nn.Linear(3, 3)
    zeros, ones = ({name: fill(p.shape) for name, p in model.named_parameters()} for fill in (torch.zeros, torch.ones))
    assert soft_reinit_with_distance_(model, zeros, 1.0) == 1.0
    assert soft_reinit_with_distance_(model, zeros, 0.5) == 0.0
    assert soft_reinit_with_distance_(model, ones, 0.5) == float("inf")
    assert soft_reinit_with_distance_(model.requires_grad_(False), ones, 0.5) == 0.0


def test_floating_statistics_are_interpolated_and_counts_are_not():
    model, initial = make_model(), values(make_model(1).named_buffers())
    model[1].num_batches_tracked += 5
    model.register_buffer("positions", torch.rand(3), persistent=False)
    constant = torch.rand(50)
    model.register_buffer("constant", constant.clone())
    initial |= {"positions": torch.zeros(3), "constant": constant}
    before, parameters = values(model.named_buffers()), values(model.named_parameters())
    interpolate_buffers_(model, initial, 0.3)
    for name in ("1.running_mean", "1.running_var"):
        assert torch.equal(model.get_buffer(name), torch.lerp(before[name], initial[name], 0.3))
    for name in ("1.num_batches_tracked", "positions", "constant"):
        assert torch.equal(model.get_buffer(name), before[name]), name
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in model.named_parameters())
    with pytest.raises(KeyError, match="buffer '.*' has no initial value"):
        interpolate_buffers_(model, {}, 0.3)


@pytest.mark.parametrize("alpha", [0.3, 0.7])
def test_values_that_still_equal_their_initial_ones_stay(alpha):
    torch.manual_seed(0)
    table = nn.Embedding(50, 7)
    initial = table.weight.detach().clone()
    with torch.no_grad():
        table.weight[::2] += 0.1
    soft_reinit_(table, {"weight": initial}, alpha)
    assert torch.equal(table.weight[1::2], initial[1::2])
    assert not torch.equal((1 - alpha) * initial + alpha * initial, initial)  # the formula as written would round some
    assert not (table.weight[::2] == initial[::2]).all(dim=1).any()


def test_empty_parameters_are_passed_over():
    module = nn.ParameterDict({"none": torch.zeros(0, 3), "some": torch.ones(2)})
    soft_reinit_(module, {"none": torch.zeros(0, 3), "some": torch.zeros(2)}, 0.5)
    assert module["some"].tolist() == [0.5, 0.5]
