"""The file of initial weights."""

import copy
import errno
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hf_relearn.method import InitialWeights, InitialWeightsError, soft_reinit_


class TwoTowers(nn.Module):
    """Two modalities whose names begin alike, and a head."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {"view": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "view_front": nn.Linear(3, 4)}
        )
        self.head = nn.Linear(8, 2)


class Tied(nn.Module):
    """A head, registered first, that shares its weight with the encoder's embedding."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 9, bias=False)
        self.encoder = nn.Embedding(9, 4)
        self.encoder.weight = self.head.weight


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoTowers()


def test_every_value_comes_back_by_its_full_name(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path / "new" / "folder")
    expected = dict(model.named_parameters()) | {
        name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()
    }
    assert set(weights) == set(expected)
    assert len(weights) == len(expected)
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
        assert weights.shape_of(name) == tuple(tensor.shape)
    assert "head.weight" in weights
    assert "head" not in weights


def test_values_are_those_at_the_time_of_saving(model, tmp_path):
    before = model.head.weight.detach().clone()
    weights = InitialWeights.save(model, tmp_path)
    with torch.no_grad():
        model.head.weight.add_(1)
    weights["head.weight"].zero_()  # a copy: neither the file nor a later reading changes
    assert torch.equal(weights["head.weight"], before)


def test_every_type_and_layout_is_kept_to_the_bit(tmp_path):
    width = 5
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
    tensors = {f"wide.{dtype}": (torch.rand(width) * 9).to(dtype) for dtype in dtypes}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 4), "transposed": torch.rand(width, 2).T}
    flat = torch.rand(8)
    tensors |= {"first half": flat[:4], "second half": flat[4:], "all": flat, "again": flat}
    weights = InitialWeights.save(tensors, tmp_path)
    standard = load_file(weights.path)
    for name, tensor in tensors.items():
        for found in (weights[name], standard[name]):
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert torch.equal(found, tensor), name


def test_name_follows_from_the_content(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path)
    assert weights.path == tmp_path / f"_initial_weights-{weights.checksum[:12]}.safetensors"
    assert len(weights.checksum) == 32
    int(weights.checksum, 16)
    again = InitialWeights.save(copy.deepcopy(model), tmp_path)
    assert again.path == weights.path and again.checksum == weights.checksum
    with torch.no_grad():
        model.head.bias[0] += 1e-7
    other = InitialWeights.save(model, tmp_path)
    assert other.checksum != weights.checksum
    assert InitialWeights.find(tmp_path) == sorted([weights.path, other.path])
    assert InitialWeights.find(tmp_path, weights.checksum) == [weights.path]
    assert InitialWeights.load(other.path).checksum == other.checksum


def cut(content):
    return content[:-3]


def flipped(content):
    return content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]


def zeroed(content):
    return content[: len(content) - 100] + bytes(100)


@pytest.mark.parametrize("damage", [cut, flipped, zeroed, lambda content: b""])
def test_damage_is_found_by_the_checksum_and_mended_by_a_fresh_start(model, tmp_path, damage):
    weights = InitialWeights.save(model, tmp_path)
    complete = weights.path.read_bytes()
    weights.path.write_bytes(damage(complete))
    with pytest.raises(InitialWeightsError, match=f"{weights.path.name} is damaged"):
        InitialWeights.load(weights.path, weights.checksum)
    InitialWeights.save(model, tmp_path)
    assert weights.path.read_bytes() == complete


def test_other_weights_under_the_name_are_refused(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path / "one")
    torch.manual_seed(1)
    other = InitialWeights.save(TwoTowers(), tmp_path / "other")
    other.path.replace(weights.path)
    with pytest.raises(InitialWeightsError, match=f"holds the weights of another run.*{weights.checksum}"):
        InitialWeights.load(weights.path, weights.checksum)


def test_a_failed_save_leaves_nothing_behind(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space.*_initial_weights-"):
        InitialWeights.save(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_file_can_be_read_by_those_whom_the_umask_lets(model, tmp_path):
    before = os.umask(0o027)
    try:
        weights = InitialWeights.save(model, tmp_path)
    finally:
        os.umask(before)
    assert weights.path.stat().st_mode & 0o777 == 0o640


def test_prefixes_select_modules_and_not_names_that_begin_alike(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path, prefixes=["encoders.view"])
    assert all(name.startswith("encoders.view.") for name in weights)
    assert len(weights) == 6
    without = InitialWeights.save(model, tmp_path, prefixes=["encoders.view"], include_buffers=False)
    assert set(weights) - set(without) == {"encoders.view.1.running_mean", "encoders.view.1.running_var"}
    with pytest.raises(ValueError, match="no parameter under 'encoders.audio'"):
        InitialWeights.save(model, tmp_path, prefixes=["encoders.view", "encoders.audio"])
    with pytest.raises(ValueError, match="filter a mapping"):
        InitialWeights.save(dict(model.named_parameters()), tmp_path, prefixes=["head"])


def test_subset_serves_one_encoder(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path)
    encoder = model.encoders["view_front"]
    before = encoder.weight.detach().clone()
    with torch.no_grad():
        encoder.weight.add_(1)
    view = weights.subset("encoders.view_front")
    assert set(view) == {"weight", "bias"}
    assert view.shape_of("weight") == (4, 3)
    assert "view_front.weight" not in view
    soft_reinit_(encoder, view, 1.0)
    assert torch.equal(encoder.weight, before)
    assert set(weights.subset("")) == set(weights)
    with pytest.raises(KeyError, match="no initial weights under 'encoders.vie'"):
        weights.subset("encoders.vie")


def test_a_shared_parameter_is_stored_once_and_found_under_each_name(tmp_path):
    model = Tied()
    weights = InitialWeights.save(model, tmp_path)
    assert list(load_file(weights.path)) == ["head.weight"]
    assert torch.equal(weights["encoder.weight"], model.head.weight)
    weights.check_matches(model)
    soft_reinit_(model.encoder, InitialWeights.load(weights.path).subset("encoder"), 0.5)
    assert set(InitialWeights.save(model, tmp_path, prefixes=["encoder"])) == {"encoder.weight"}


def test_copies_and_pickles_hold_no_tensor(tmp_path):
    weights = InitialWeights.save({"a": torch.rand(100_000)}, tmp_path)
    packed = pickle.dumps(weights)
    assert len(packed) < 2000
    for twin in (pickle.loads(packed), copy.deepcopy(weights)):
        assert torch.equal(twin["a"], weights["a"])


def test_other_model_is_refused_by_the_first_name_that_differs(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path)
    weights.check_matches(model)
    wider, renamed, smaller = TwoTowers(), TwoTowers(), TwoTowers()
    wider.head = nn.Linear(8, 3)
    renamed.encoders["audio"] = renamed.encoders.pop("view_front")
    del smaller.head
    for other, message in (
        (wider, r"another model: 'head.weight' has the shape \(2, 8\) there and \(3, 8\)"),
        (renamed, "lacks this model's parameter 'encoders.audio.weight'"),
        (smaller, "this model lacks its parameter 'head.bias'"),
    ):
        with pytest.raises(InitialWeightsError, match=message):
            weights.check_matches(other)


def test_what_lies_outside_the_prefixes_is_not_compared(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path, prefixes=["encoders.view"], include_buffers=False)
    model.head = nn.Linear(8, 5)
    weights.check_matches(model)


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_damaged_file_is_named(model, tmp_path, size):
    path = InitialWeights.save(model, tmp_path).path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InitialWeightsError, match=f"{path.name} is damaged"):
        InitialWeights.load(path)


def test_a_file_that_changes_after_opening_is_named(model, tmp_path):
    weights = InitialWeights.save(model, tmp_path)
    complete = weights.path.read_bytes()
    weights.path.write_bytes(complete)  # touched only
    assert torch.equal(weights["head.weight"], model.head.weight)
    weights.path.write_bytes(flipped(complete))
    with pytest.raises(InitialWeightsError, match="is damaged.*Restore it from a copy"):
        weights["head.weight"]
    weights.path.unlink()
    with pytest.raises(InitialWeightsError, match="cannot be read any more.*was deleted"):
        soft_reinit_(model, weights, 0.5)


def test_absent_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors does not exist"):
        InitialWeights.load(tmp_path / "nowhere.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InitialWeightsError, match="not one of initial weights"):
        InitialWeights.load(tmp_path / "model.safetensors")
    assert InitialWeights.find(tmp_path) == []
    assert InitialWeights.find(tmp_path / "nowhere") == []


def test_tensors_without_values_are_refused(tmp_path):
    with pytest.raises(TypeError, match="'weight' is on the meta device"):
        InitialWeights.save(nn.Linear(2, 2, device="meta"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_tensor_is_read_alone(tmp_path):
    tensors = {"encoder.weight": torch.rand(5, 3), "encoder.scale": torch.tensor(2.0), "none": torch.rand(0, 3)}
    weights = InitialWeights.save(tensors, tmp_path)
    part = weights.subset("encoder").read_part("weight", (slice(1, 3), slice(None)))
    assert torch.equal(part, tensors["encoder.weight"][1:3])
    assert torch.equal(
        weights.read_part("encoder.weight", (slice(4, 5), slice(1, 2))), tensors["encoder.weight"][4:5, 1:2]
    )
    assert weights.read_part("encoder.weight", (slice(5, 5), slice(None))).shape == (0, 3)
    assert weights.read_part("encoder.scale", ()) == 2
    assert weights.read_part("none", (slice(0, 0), slice(None))).shape == (0, 3)
