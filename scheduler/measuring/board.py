"""Facts about the machine: board, clocks, governors, power mode. They are read from files, without root or tools.

Every fact is optional: it is left out on machines that do not provide it.

References:
    Linux kernel: Documentation/admin-guide/pm/cpufreq.rst, Documentation/ABI/testing/sysfs-class-devfreq.
    NVIDIA Jetson Linux Developer Guide, Clocks / Power and Performance (nvpmodel; GPU devfreq of Xavier and Orin).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_BOARD_FILES = ("proc/device-tree/model", "sys/firmware/devicetree/base/model", "sys/class/dmi/id/product_name")
_GPU_FOLDERS = ("sys/class/devfreq/*", "sys/devices/gpu.0/devfreq/*", "sys/devices/platform/*.g*/devfreq/*")
_GPU_NAME = re.compile(r"\.(gpu|gp10b|gv11b|ga10b|gb10b)$")
_NVPMODEL_STATUS = "var/lib/nvpmodel/status"
_NVPMODEL_CONFIG = "etc/nvpmodel.conf"
_POWER_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")


def board_name(root: Path = Path("/")) -> str:
    """Returns the board's name; empty if it has none."""
    return next((name for path in _BOARD_FILES if (name := _text(root / path))), "")


def environment(root: Path = Path("/")) -> dict[str, str]:
    """Returns the facts that influence speed, as texts by name.

    Args:
        root: folder of `/proc`, `/sys`, `/etc` and `/var`; tests use a folder of copies.
    """
    return dict((*_board(root), *_power_mode(root), *_cpu_clocks(root), *_gpu_clocks(root)))


def _board(root: Path) -> Iterator[tuple[str, str]]:
    if name := board_name(root):
        yield "board", name
    release = _text(root / "etc/nv_tegra_release")
    if match := re.match(r"#\s*(R\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release):
        yield "jetson_linux", f"{match[1]}.{match[2]}"
    for line in _text(root / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            yield "cpu", line.partition(":")[2].strip()
            return


def _power_mode(root: Path) -> Iterator[tuple[str, str]]:
    """Yields the power mode: the status file holds its number (`pmode:0002`), the configuration its name."""
    match = re.search(r"pmode:(\d+)", _text(root / _NVPMODEL_STATUS))
    if match is None:
        return
    number = int(match[1])
    names = {int(found[1]): found[2] for found in _POWER_MODEL.finditer(_text(root / _NVPMODEL_CONFIG))}
    yield "power_mode", f"{number} ({names[number]})" if number in names else str(number)


def _cpu_clocks(root: Path) -> Iterator[tuple[str, str]]:
    """Yields governor and clocks: one value if all cores agree, else the range."""
    folders = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    governors = sorted({governor for folder in folders if (governor := _text(folder / "scaling_governor"))})
    if governors:
        yield "cpu_governor", ", ".join(governors)
    for name, file in (("cpu_clock", "scaling_cur_freq"), ("cpu_clock_max", "scaling_max_freq")):
        kilohertz = sorted(number for folder in folders if (number := _number(folder / file)) is not None)
        if kilohertz:
            yield name, _megahertz([value / 1e3 for value in (kilohertz[0], kilohertz[-1])])


def _gpu_clocks(root: Path) -> Iterator[tuple[str, str]]:
    folder = next(_gpu_folders(root), None)
    if folder is None:
        return
    if governor := _text(folder / "governor"):
        yield "gpu_governor", governor
    for name, file in (("gpu_clock", "cur_freq"), ("gpu_clock_max", "max_freq")):
        hertz = _number(folder / file)
        if hertz is not None:
            yield name, _megahertz([hertz / 1e6])


def _gpu_folders(root: Path) -> Iterator[Path]:
    """Yields the folders of the GPU, whose path depends on the kernel version; skips other devfreq devices (memory)."""
    for pattern in _GPU_FOLDERS:
        yield from (folder for folder in sorted(root.glob(pattern)) if _GPU_NAME.search(folder.name))


def _megahertz(values: list[float]) -> str:
    words = dict.fromkeys(f"{value:.0f}" for value in values)
    return " to ".join(words) + " MHz"


def _text(path: Path) -> str:
    """Returns a file's text without the NUL that ends device-tree texts; empty if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None
