"""W workers x N/W are 1 worker x N: loss, gradients, loss averages and admissions."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).parent.parent / "support" / "gather_worker.py"


def run(tmp_path: Path, world: int) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path / str(world)
    folder.mkdir()
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(rank), str(world)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(world)
    ]
    try:
        for worker in workers:
            output = worker.communicate(timeout=280)[0]
            assert worker.returncode == 0, output.decode()
    finally:
        for worker in workers:
            worker.kill()
    return [load_file(folder / f"{rank}.safetensors") for rank in range(world)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_share_one_loss_and_one_gradient(tmp_path: Path) -> None:
    (alone,) = run(tmp_path, 1)
    assert alone["gradient.encoder.face.weight"].abs().max() > 1e-4
    assert int(alone["reweighting.admitted"].sum()) > 0
    for world in (2, 3, 4):  # 3: shares of 2, 3 and 3 rows
        ranks = run(tmp_path, world)
        for tensors in ranks:
            assert tensors.keys() == alone.keys()
            for name, expected in alone.items():
                torch.testing.assert_close(
                    tensors[name], expected, atol=1e-5, rtol=1e-5, msg=f"{world}: {name}"
                )
        for name in alone:
            assert all(torch.equal(tensors[name], ranks[0][name]) for tensors in ranks), name
