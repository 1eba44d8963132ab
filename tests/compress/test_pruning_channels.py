"""Narrowing a real YOLO26n: what goes together, what stays, and that nothing else changes."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy

import pytest

from musgd_cli.errors import UnsupportedError

pytest.importorskip("torch_pruning")
torch = pytest.importorskip("torch")

SIZE = 64


@pytest.fixture(scope="module")
def channels(ultralytics):
    from musgd_cli.compress import channels

    return channels


def build(ultralytics, config: str = "yolo26n.yaml"):
    """A network whose statistics differ from channel to channel, so that a mix-up shows."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(config, nc=3, verbose=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean):
                values.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def model(ultralytics):
    return build(ultralytics)


def gates_of(model) -> dict[str, torch.Tensor]:
    """Gates by which each channel costs what it weighs: a dead one nothing."""
    return {
        name: module.weight.data.abs()[None]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }


@pytest.fixture(scope="module")
def order(channels, model):
    return channels.removal_order(model, gates_of(model), SIZE)


def raw_heads(model, x):
    """What both heads say, before it is decoded."""
    with torch.no_grad():
        _, heads = model(x)
    return [heads[head][kind] for head in ("one2many", "one2one") for kind in ("boxes", "scores")]


def convolutions(model) -> dict[str, torch.nn.Conv2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)}


def test_without_a_cut_not_a_bit_changes(channels, model):
    same = channels.prune(model, gates_of(model), [])
    assert [type(m) for m in same.modules()] == [type(m) for m in model.modules()]
    theirs, ours = model.state_dict(), same.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    x = torch.rand(2, 3, SIZE, SIZE)
    for before, after in zip(raw_heads(model, x), raw_heads(same, x), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("config", ["yolo26n.yaml", "yolo11n.yaml", "yolov8n.yaml"])
def test_channels_that_say_nothing_can_go_unnoticed(channels, ultralytics, config):
    """Every other channel is dead; an index that is off by one removes a living one."""
    model = build(ultralytics, config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data[::2] = 0
            module.bias.data[::2] = 0
    gates = gates_of(model)
    cuts = [cut for cut in channels.removal_order(model, gates, SIZE) if cut.removed < 0.4]
    assert cuts[-1].removed > 0.35
    narrow = channels.prune(model, gates, cuts)
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        before, after = model(x)[0], narrow.eval()(x)[0]
    # Boxes are in pixels; what a mix-up changes is larger by orders of magnitude.
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-2)
    assert before.std() > 1


def test_the_order_keeps_its_promises(channels, model, order):
    whole = channels.count_macs(model, SIZE)
    assert [cut.removed for cut in order] == sorted({cut.removed for cut in order})
    assert [cut.macs for cut in order] == sorted({cut.macs for cut in order}, reverse=True)
    for n in (1, len(order) // 2, len(order)):
        narrow = channels.prune(model, gates_of(model), order[:n])
        assert channels.count_macs(narrow, SIZE) / whole == pytest.approx(order[n - 1].macs)


def test_at_its_end_every_part_still_fits_the_others(channels, model, order):
    narrow = channels.prune(model, gates_of(model), order)
    before, after = convolutions(model), convolutions(narrow)
    assert before.keys() == after.keys()
    for name, conv in after.items():
        width = before[name].out_channels
        assert conv.weight.shape[0] == conv.out_channels >= width * channels.LEAST_KEPT
        assert conv.out_channels in (width, conv.out_channels // 8 * 8)
        assert conv.groups in (1, conv.in_channels)
        if ".attn." in name:
            assert conv.out_channels == width
    for name, block in narrow.named_modules():
        if hasattr(block, "c"):
            assert block.cv1.conv.out_channels == 2 * block.c, name
    head = narrow.model[-1]
    for many, one in ((head.cv2, head.one2one_cv2), (head.cv3, head.one2one_cv3)):
        assert [p.shape for p in many.parameters()] == [p.shape for p in one.parameters()]
    x = torch.rand(2, 3, SIZE, SIZE)
    for was, got in zip(raw_heads(model, x), raw_heads(narrow, x), strict=True):
        assert got.shape == was.shape
        assert got.isfinite().all()
    # All of it is trained on: gradients reach every parameter.
    heads = narrow.train()(x)
    sum(
        v.square().sum() for head in heads.values() for v in (head["boxes"], head["scores"])
    ).backward()
    assert [name for name, p in narrow.named_parameters() if p.grad is None] == []


def test_what_costs_much_stays(channels, model):
    gates = gates_of(model)
    dear = {name: values.clone() for name, values in gates.items()}
    dear["model.0.bn"] += 1e6
    removed = defaultdict(int)
    after = channels.widths(
        channels.prune(model, dear, channels.removal_order(model, dear, SIZE)[:-2])
    )
    for name, width in channels.widths(model).items():
        removed[name] = width - after[name]
    assert removed["model.0.conv"] == 0
    assert removed["model.22.cv2.conv"] > 0


def test_the_model_that_is_pruned_is_left_as_it_was(channels, model, order):
    before = deepcopy(model.state_dict())
    channels.prune(model, gates_of(model), order)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pruned_weights_are_pruned_again(channels, model, order):
    once = channels.prune(model, gates_of(model), order[: len(order) // 3])
    again = channels.removal_order(once, gates_of(once), SIZE)
    twice = channels.prune(once, gates_of(once), again[: len(again) // 3])
    assert channels.count_macs(twice, SIZE) < channels.count_macs(once, SIZE)
    assert raw_heads(twice.eval(), torch.rand(1, 3, SIZE, SIZE))[0].isfinite().all()


def test_layers_of_which_we_know_nothing_are_refused(channels, ultralytics):
    model = build(ultralytics, "yolo12n.yaml")
    with pytest.raises(UnsupportedError, match="A2C2f") as refused:
        channels.removal_order(model, gates_of(model), SIZE)
    assert "YOLO26" in refused.value.mend
