"""Cards of torch's files as users have them: traced with one item, ended by `squeeze`; and no hints to developers."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from models.authoring.command import main
from models.card import TensorSpec
from models.card_reader import read_card

torch = pytest.importorskip("torch")
nn = torch.nn
X = "x=FP32[3,4,4]"


class Ends(nn.Module):  # type: ignore[misc,name-defined]
    """A linear layer between ways to begin and to end."""

    def __init__(self, begin: Any, outputs: int, end: Any = lambda y: y) -> None:
        """Makes a layer with weights of its own."""
        super().__init__()
        self.layer, self.begin, self.end = nn.Linear(48, outputs), begin, end

    def forward(self, x: Any) -> Any:
        """Computes the outputs."""
        return self.end(self.layer(self.begin(x)))


def traced(path: Path, network: Any, items: int = 1) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(items, 3, 4, 4)), str(path))
    return path


def test_a_network_traced_with_one_item_takes_any_number_if_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.flatten(1), 5))
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--input", X]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.outputs, card.max_batch) == ((TensorSpec("output", "FP32", (5,)),), 32)
    assert "note" not in capsys.readouterr().out


def test_a_network_that_runs_on_one_item_only_is_served_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.view(1, -1), 5))
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--input", X]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.outputs, card.max_batch) == ((TensorSpec("output", "FP32", (5,)),), 1)
    assert "note: the network runs on batches of 1 only: trace it with a batch of 2" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "mine"), "--runtime", "torch"]) == 0


def test_a_network_of_another_fixed_batch_is_refused_by_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.view(4, -1), 5), items=4)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--input", X]) == 2
    assert "the network runs on batches of 4, not on other sizes: trace it without" in capsys.readouterr().err


def test_a_network_that_ends_with_squeeze_is_served_in_batches_of_one_too(tmp_path: Path) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.flatten(1), 1, lambda y: y.squeeze()))
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--input", X]) == 0
    assert read_card(tmp_path / "mine").outputs == (TensorSpec("output", "FP32"),)
    assert main(["check", str(tmp_path / "mine"), "--runtime", "torch"]) == 0


def test_what_is_wrong_with_the_network_is_said_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.flatten(1), 5))
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--input", "x=FP32[3,5,5]"]) == 2
    assert "the network fails on a batch of zeros: " in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused_before_there_is_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=12)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    new = ["new", str(tmp_path / "mine"), "--from", str(tmp_path / "weights.pth")]
    new += ["--architecture", "torchvision:squeezenet1_1", "--picture"]
    assert main(new) == 2
    assert "does not fit torchvision:squeezenet1_1 with arguments {} (size mismatch" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
    assert main([*new, "--argument", "num_classes=12"]) == 0


def test_the_commands_say_nothing_to_developers(tmp_path: Path) -> None:
    source = traced(tmp_path / "net.pt", Ends(lambda x: x.flatten(1), 5))
    program = torch.export.export(
        Ends(lambda x: x.flatten(1), 5).eval(),
        (torch.zeros(2, 3, 4, 4),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    torch.export.save(program, str(tmp_path / "net.pt2"))
    folders = [str(tmp_path / "script"), str(tmp_path / "exported")]
    calls: list[list[str]] = [
        ["new", folders[0], "--from", str(source), "--input", X],
        ["new", folders[1], "--from", str(tmp_path / "net.pt2")],
        ["convert", folders[0]],
        ["check", folders[0], "--runtime", "onnxruntime"],
        ["check", folders[1], "--runtime", "torch"],
    ]
    code = f"import sys; from models.authoring.command import main; sys.exit(max(main(call) for call in {calls!r}))"
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
