"""The event loop of the worlds of `scripts.soak`, for tests of single parts."""

from scripts.support.virtual_loop import NothingLeft, VirtualLoop, run_virtual

__all__ = ["NothingLeft", "VirtualLoop", "run_virtual"]
