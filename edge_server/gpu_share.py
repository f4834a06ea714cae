"""A share of the GPU for this process by NVIDIA MPS: asked for before CUDA starts, and what CUDA then gives.

References:
    NVIDIA Multi-Process Service (docs.nvidia.com/deploy/mps): CUDA_MPS_ACTIVE_THREAD_PERCENTAGE,
    CUDA_MPS_PINNED_DEVICE_MEM_LIMIT, CUDA_MPS_PIPE_DIRECTORY.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from edge_server.errors import StartupError
from models.hardware import has_gpu

_PIPES_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
_PIPES = "/tmp/nvidia-mps"


@dataclass(frozen=True, slots=True)
class GpuShare:
    """Share of the GPU that this process asks MPS for.

    Attributes:
        percentage: of the GPU's multiprocessors.
        memory: the most memory, DEVICE=SIZE as CUDA's variable takes it; None: no limit.
    """

    percentage: float
    memory: str | None = None

    def take(self, environ: MutableMapping[str, str], *, gpu: bool | None = None) -> None:
        """Sets the variables that CUDA reads when it starts in this process.

        Args:
            environ: the environment of this process.
            gpu: whether this machine has an NVIDIA GPU; None: as it is found.

        Raises:
            StartupError: there is no GPU, or no control daemon of MPS; CUDA itself would start without MPS.
        """
        if not (has_gpu() if gpu is None else gpu):
            raise StartupError("--mps-percentage shares a GPU, but this machine has no NVIDIA GPU: leave it out")
        pipes = Path(environ.get(_PIPES_VARIABLE) or _PIPES)
        if not _is_pipe(pipes / "control"):
            raise StartupError(
                f"--mps-percentage needs the control daemon of MPS, which has no pipe in {pipes}: start it with"
                f" `nvidia-cuda-mps-control -d`, or set {_PIPES_VARIABLE} to its folder"
            )
        environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = f"{self.percentage:g}"
        if self.memory is not None:
            environ["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = self.memory

    def as_given(self) -> dict[str, object]:
        """Returns what was asked for, and what CUDA says that this process has, where torch has started CUDA.

        Under MPS, CUDA counts only the multiprocessors of the share.
        """
        given: dict[str, object] = {"percentage": self.percentage}
        if self.memory is not None:
            given["memory"] = self.memory
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            device = torch.cuda.current_device()
            given["multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count
            given["free_bytes"], given["total_bytes"] = torch.cuda.mem_get_info(device)
        return given


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode) or stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
