"""Base class of the errors of this package, and what a sentence says of an error of others."""

from __future__ import annotations


class ModelError(ValueError):
    """Error: a model, picture or profile cannot be used; the message names it and says what to do."""


class DeviceLost(ModelError):
    """Error: the GPU answers nothing to this process any more; only another process can use it."""


class OutOfDeviceMemory(ModelError):
    """Error: a batch does not fit in the device's memory, in part of which something else may be."""


_MEMORY_WORDS = ("outofmemory", "out of memory", "failed to allocate memory", "alloc_failed")
# As CUDA, torch and ONNX Runtime word errors after which every further call of the process fails.
_LOST_WORDS = ("acceleratorerror", "cuda error:", "cuda failure", "status_execution_failed", "status_internal_error")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Returns whether an error, or what it came from, says so; each runtime has a class of its own for that."""
    while error is not None:
        words = f"{type(error).__name__} {error}".lower()
        if isinstance(error, MemoryError) or any(word in words for word in _MEMORY_WORDS):
            return True
        error = error.__cause__
    return False


def of_device(error: BaseException, *, name: str, items: int) -> ModelError | None:
    """Returns what an error of a runtime says of its GPU; None if it says nothing of it.

    Args:
        error: as the runtime raised it.
        name: the model's.
        items: of the batch.

    >>> type(of_device(RuntimeError("CUDA error: device-side assert triggered"), name="m", items=1)).__name__
    'DeviceLost'
    """
    if is_out_of_memory(error):
        return OutOfDeviceMemory(
            f"a batch of {items} of model {name} does not fit in the GPU's memory: send smaller batches, or lower"
            " max_batch"
        )
    words = f"{type(error).__name__} {error}".lower()
    if any(word in words for word in _LOST_WORDS):
        return DeviceLost(
            f"the GPU answers nothing to this process any more, since a batch of model {name} ({last_line(error)}): it"
            " must be started again"
        )
    return None


def last_line(error: BaseException) -> str:
    """Returns the last line of an error as a traceback shows it, shortened: what a sentence can carry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}"[:400] if lines else type(error).__name__
