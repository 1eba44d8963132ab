"""Two processes that train one model take the same steps, as one process would.

Each holds all of it (DDP) or a part of each tensor's rows (FSDP2), of 3 rows not the same part.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
distributed = pytest.importorskip("torch.distributed")

from musgd_cli.optim import MuSGD  # noqa: E402

KINDS: list[dict[str, Any]] = [
    {},
    {"norm_scope": "global"},
    {"adapt_factor": "auto"},
    {"adapt_factor": "auto", "norm_scope": "global", "skip_nonfinite": True},
    {"second_moment": "rowcol", "adapt_factor": 0, "nesterov": True},
    {"second_moment": "rowcol", "adapt_factor": "auto", "skip_nonfinite": True},
]


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))


def inputs(step: int) -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step))


def train(net: torch.nn.Module, options: dict[str, Any], half: slice) -> list[torch.Tensor]:
    """Five steps; every beta, then every parameter."""
    optimizer = MuSGD(net.parameters(), lr=0.1, **options)
    seen = []
    for step in range(5):
        optimizer.zero_grad()
        net(inputs(step)[half]).square().mean().mul(4).backward()
        optimizer.step()
        seen.append(optimizer.last_beta())
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in net.parameters()]
    return [*seen, *(p.detach() for p in whole)]


def rank(index: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2
    )
    half = slice(0, 4) if index == 0 else slice(4, 8)
    mesh = init_device_mesh("cpu", (2,))
    results = [
        (
            train(torch.nn.parallel.DistributedDataParallel(model()), options, half),
            train(fully_shard(model(), mesh=mesh), options, half),
        )
        for options in KINDS
    ]
    torch.save(results, f"{folder}/{index}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available(), reason="torch was built without distributed")
def test_two_gloo_ranks_agree_bit_for_bit_and_match_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in (0, 1))
    for options, ours, theirs in zip(KINDS, first, second, strict=True):
        alone = train(model(), options, slice(0, 8))
        for mine, other, single in zip(chain(*ours), chain(*theirs), alone * 2, strict=True):
            assert torch.equal(mine, other), options
            torch.testing.assert_close(mine, single, rtol=1e-5, atol=1e-6)
