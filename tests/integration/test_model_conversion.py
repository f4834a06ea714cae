"""ONNX files made of torch's formats: the same answers, no old file for a changed model, no trace of the machine."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.model_answers import answer, assert_same
from support.model_folders import KINDS, Made, make, torch_module

from models import conversion
from models.card import CARD_FILE, Card
from models.card_reader import read_card
from models.conversion import FOLDER
from models.errors import ModelError
from models.loading import load
from models.serving import ServedModel

CONVERTIBLE = [
    *(("torchscript", kind) for kind in KINDS),
    ("torch-export", "ragged"),
    ("state-dict", "picture"),
    ("state-dict", "tensors"),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def on_onnx(made: Made) -> ServedModel:
    return load(read_card(made.folder), device="cpu", runtime="onnxruntime")


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.onnx"))


@pytest.mark.parametrize(("model_format", "kind"), CONVERTIBLE)
def test_a_conversion_answers_as_the_framework(tmp_path: Path, model_format: str, kind: str) -> None:
    made = make(tmp_path, model_format, kind)
    model = on_onnx(made)
    for items in (1, 4):
        inputs = made.inputs(items)
        assert_same(answer(model, inputs), made.expected(inputs))
    assert model.runtime.name == "onnxruntime"
    # The file may be passed on; where it was made is not in it.
    for path in (made.folder / FOLDER).iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


def test_the_next_load_needs_no_torch(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    on_onnx(made)
    script = (
        "import sys; from pathlib import Path;"
        "from models.card_reader import read_card; from models.loading import load;"
        "model = load(read_card(Path(sys.argv[1])), device='cpu'); print(model.runtime.name, 'torch' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, str(made.folder)], check=True, capture_output=True, text=True, timeout=60
    )
    assert printed.stdout.split() == ["onnxruntime", "False"]


def test_a_conversion_is_no_part_of_the_identity(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    before = read_card(made.folder).identity()
    assert on_onnx(made).identity == before
    assert read_card(made.folder).identity() == before


def test_a_changed_model_never_uses_the_old_file(tmp_path: Path) -> None:
    import torch

    made = make(tmp_path, "torchscript", "tensors")
    on_onnx(made)
    (old,) = kept(made.folder / FOLDER)
    module = torch_module("tensors")
    module.linear.weight.data.mul_(3)
    torch.jit.save(torch.jit.script(module), str(made.folder / "model.pt"))

    changed = load(read_card(made.folder), device="cpu")
    assert changed.runtime.name == "torch"

    inputs = made.inputs(2)
    assert_same(answer(on_onnx(made), inputs), answer(changed, inputs))
    (new,) = kept(made.folder / FOLDER)
    assert new != old


def test_a_changed_card_never_uses_the_old_file(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    on_onnx(made)
    with (made.folder / CARD_FILE).open("a") as card:
        card.write("tolerance = 0.5\n")
    assert load(read_card(made.folder), device="cpu").runtime.name == "torch"


def test_a_folder_that_cannot_be_written_has_its_conversions_in_the_cache(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    # A file of that name keeps even root from making the folder.
    (made.folder / FOLDER).write_text("")
    on_onnx(made)
    assert len(kept(tmp_path / "cache" / "edgeburst" / "converted")) == 1
    assert load(read_card(made.folder), device="cpu").runtime.name == "onnxruntime"


def test_lists_with_one_tensor_an_item_are_not_converted(tmp_path: Path) -> None:
    made = make(tmp_path, "state-dict", "ragged")
    with pytest.raises(ModelError, match="cannot be converted to ONNX: its outputs are lists"):
        on_onnx(made)


def test_a_conversion_that_answers_otherwise_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    exported = conversion._exported

    def other(card: Card, program: Any, *args: Any, **options: Any) -> None:
        changed = torch_module("tensors")
        changed.linear.bias.data.add_(1)
        import torch

        exported(card, torch.jit.script(changed), *args, **options)

    monkeypatch.setattr(conversion, "_exported", other)
    with pytest.raises(ModelError, match="cannot be converted to ONNX, at a batch of 1 output 'y' differs by 1, over"):
        on_onnx(made)
    assert list((made.folder / conversion.FOLDER).iterdir()) == []


def test_files_are_readable_for_other_users(tmp_path: Path) -> None:
    made = make(tmp_path, "state-dict", "tensors")
    on_onnx(made)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (made.folder / FOLDER).iterdir()}
    assert modes == {0o644}


def test_measured_at_the_start_every_candidate_is_reported(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "picture")
    model = load(read_card(made.folder), device="cpu", measure_s=1.0)
    tried = model.runtime.tried
    assert {"torch", "torch-channels_last", "onnxruntime"} <= {
        name for name, seconds in tried.items() if isinstance(seconds, float)
    }
    inputs = made.inputs(3)
    assert_same(answer(model, inputs), made.expected(inputs))


@pytest.mark.parametrize("runtime", ["torch", "torch-channels_last", "onnxruntime"])
def test_a_named_runtime_is_used(tmp_path: Path, runtime: str) -> None:
    made = make(tmp_path, "torchscript", "picture")
    model = load(read_card(made.folder), device="cpu", runtime=runtime, measure_s=1.0)
    assert model.runtime.name == runtime.replace("-", " ")
    inputs = made.inputs(3)
    assert_same(answer(model, inputs), made.expected(inputs))


def test_half_precision_by_name_gives_about_the_same_answers(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "picture")
    model = load(read_card(made.folder), device="cpu", runtime="torch-bf16")
    inputs = made.inputs(2)
    assert model.runtime.precision == "bf16"
    found, expected = answer(model, inputs)["probabilities"], made.expected(inputs)["probabilities"]
    assert found == pytest.approx(expected, abs=0.02)
    assert (found != expected).any()
