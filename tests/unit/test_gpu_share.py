"""A share of the GPU by MPS: what CUDA is told before it starts, and what stands in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_server.errors import StartupError
from edge_server.gpu_share import GpuShare


@pytest.fixture
def pipes(tmp_path: Path) -> Path:
    """Return the folder of a control daemon that runs."""
    os.mkfifo(tmp_path / "control")
    return tmp_path


def test_cuda_is_told_the_share_and_the_limit(pipes: Path) -> None:
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    GpuShare(30, "0=4G").take(environ, gpu=True)

    assert environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    assert environ["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=4G"


def test_without_a_limit_none_is_set(pipes: Path) -> None:
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    GpuShare(12.5).take(environ, gpu=True)

    assert environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "12.5"
    assert "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" not in environ


def test_without_a_control_daemon_the_start_says_how_to_get_one(tmp_path: Path) -> None:
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    (tmp_path / "control").touch()  # what a daemon that is gone may leave behind is no pipe

    with pytest.raises(StartupError, match=r"has no pipe in .*nvidia-cuda-mps-control -d"):
        GpuShare(30).take(environ, gpu=True)
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in environ


def test_without_a_gpu_the_start_says_so(pipes: Path) -> None:
    with pytest.raises(StartupError, match="this machine has no NVIDIA GPU"):
        GpuShare(30).take({"CUDA_MPS_PIPE_DIRECTORY": str(pipes)}, gpu=False)


def test_metadata_has_what_was_asked_for_and_what_cuda_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert GpuShare(30, "0=4G").as_given() == {"percentage": 30, "memory": "0=4G"}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 0,
        get_device_properties=lambda _: SimpleNamespace(multi_processor_count=5),
        mem_get_info=lambda _: (3, 4),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert GpuShare(30).as_given() == {"percentage": 30, "multiprocessors": 5, "free_bytes": 3, "total_bytes": 4}
