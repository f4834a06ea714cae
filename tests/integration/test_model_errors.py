"""What is wrong with a model's files or code is one sentence; a handler's traceback goes to the log."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.model_answers import answer, assert_same
from support.model_folders import make, torch_module, write_card

from models.authoring.command import main
from models.card import CARD_FILE, CardError
from models.card_reader import read_card
from models.errors import ModelError
from models.loading import load
from models.serving import ServedModel
from scheduler.wire import WireError

TENSORS = (
    'inputs = [{ name = "x", datatype = "FP32", shape = [2] }]',
    'outputs = [{ name = "y", datatype = "FP32", shape = [2] }]',
)

TEXT_OUTPUT = 'name = "y", datatype = "BYTES"'


def handler(folder: Path, code: str, *further: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.py").write_text(code, encoding="utf-8")
    write_card(folder, 'format = "python"', 'class = "handler.py:Handler"', *TENSORS, *further)
    return folder


def loaded(folder: Path, **options: str) -> ServedModel:
    return load(read_card(folder), device="cpu", **options)  # type: ignore[arg-type]


def ask(model: ServedModel) -> list[list[float]]:
    found: list[list[float]] = answer(model, {"x": np.array([[1, 2], [3, 4]], np.float32)})["y"].tolist()
    return found


def test_a_handlers_arguments_device_and_own_modules_reach_it(tmp_path: Path) -> None:
    folder = handler(
        tmp_path / "own",
        "import scale\nclass Handler:\n"
        "    def __init__(self, by): self.by = by\n"
        "    def load(self, device): assert device == 'cpu'\n"
        "    def predict(self, arrays): return {'y': arrays['x'] * self.by * scale.SCALE}\n",
        "arguments = { by = 3 }",
    )
    (folder / "scale.py").write_text("SCALE = 10\n")
    assert ask(loaded(folder)) == [[30, 60], [90, 120]]
    assert "scale" not in sys.modules


def test_two_folders_may_have_modules_of_the_same_name_also_imported_late(tmp_path: Path) -> None:
    code = (
        "class Handler:\n    def predict(self, arrays):\n"
        "        import scale\n        return {'y': arrays['x'] * scale.SCALE}\n"
    )
    models = []
    for name, scale in (("one", 10), ("two", 100)):
        (handler(tmp_path / name, code) / "scale.py").write_text(f"SCALE = {scale}\n")
        models.append(loaded(tmp_path / name))
    assert [ask(model)[0] for model in models * 2] == [[10, 20], [100, 200]] * 2


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import nothing_of_that_name\n", "importing handler.py failed: ModuleNotFoundError: No module named"),
        ("class Other: pass\n", "handler.py has no class Handler: correct `class` in the card"),
        ("class Handler: pass\n", "class Handler has no method predict"),
        (
            "class Handler:\n    def __init__(self): 1 / 0\n",
            r"Handler\(...\) failed: ZeroDivisionError: division by zero",
        ),
        ("class Handler:\n    def load(self, device): raise SystemExit(3)\n", "Handler.load failed: SystemExit: 3"),
        ("def :\n", "importing handler.py failed: SyntaxError"),
    ],
)
def test_a_handler_that_cannot_be_loaded(tmp_path: Path, code: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as refused:
        loaded(handler(tmp_path / "mine", code))
    assert "\n" not in str(refused.value)


def test_an_error_in_predict_is_one_sentence_and_a_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = "class Handler:\n    def predict(self, arrays):\n        raise ValueError('first\\nlast')\n"
    model = loaded(handler(tmp_path / "mine", code))
    with caplog.at_level(logging.ERROR), pytest.raises(ModelError) as failed:
        ask(model)
    assert str(failed.value) == "model mine: Handler.predict failed: ValueError: last; the log has the traceback"
    assert "raise ValueError('first" in caplog.text


def test_a_handler_may_change_its_inputs(tmp_path: Path) -> None:
    """Arrays of requests are read-only views of what came over the wire."""
    code = (
        "class Handler:\n    def predict(self, arrays):\n        arrays['x'] *= 2\n        return {'y': arrays['x']}\n"
    )
    model = loaded(handler(tmp_path / "mine", code))
    given = np.frombuffer(np.array([[1, 2], [3, 4]], np.float32).tobytes(), np.float32).reshape(2, 2)
    assert model.answer({"x": given}, errors=["", ""])["y"].tolist() == [[2, 4], [6, 8]]
    assert given.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "texts",
    ["['a', 'ä']", "[b'a', 'ä'.encode()]", "np.array(['a', 'ä'])", "np.array([bytearray(b'a'), 'ä'], object)"],
)
def test_texts_of_a_handler_are_bytes(tmp_path: Path, texts: str) -> None:
    folder = handler(
        tmp_path / "mine",
        f"import numpy as np\nclass Handler:\n    def predict(self, arrays): return {{'y': {texts}}}\n",
    )
    card = (folder / CARD_FILE).read_text().replace('name = "y", datatype = "FP32", shape = [2]', TEXT_OUTPUT)
    (folder / CARD_FILE).write_text(card)
    answered = loaded(folder).answer({"x": np.zeros((2, 2), np.float32)}, errors=["", ""])
    assert answered["y"].tolist() == [b"a", "ä".encode()]


@pytest.mark.parametrize("value", ["[[1], [1, 2]]", "np.array([1, None], object)", "[{}, {}]"])
def test_an_output_that_is_no_array_is_one_sentence(tmp_path: Path, value: str) -> None:
    code = f"import numpy as np\nclass Handler:\n    def predict(self, arrays): return {{'y': {value}}}\n"
    with pytest.raises(ModelError, match="gave output 'y' that cannot be made an array .*: return arrays of numpy$"):
        ask(loaded(handler(tmp_path / "mine", code)))


def test_a_broken_element_of_a_handlers_own_decoder_is_named_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(make(tmp_path, "python", "picture").folder)
    with pytest.raises(ModelError, match="Handler.decode failed: ValueError: this handler takes PNG files only$"):
        model.prepare("image", b"no picture")
    assert caplog.text == ""


def test_a_file_with_another_hash_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    folder = make(tmp_path, "torchscript", "tensors").folder
    with (folder / CARD_FILE).open("a") as card:
        card.write(f'sha256 = "{"0" * 64}"\n')
    with pytest.raises(CardError, match="file 'model.pt' has SHA-256"):
        loaded(folder)


@pytest.mark.parametrize("model_format", ["onnx", "torchscript", "torch-export", "state-dict"])
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path: Path, model_format: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"something else")
    further = ['architecture = "torchvision:resnet18"'] if model_format == "state-dict" else []
    write_card(tmp_path, 'name = "m"', f'format = "{model_format}"', 'file = "model.bin"', *further, *TENSORS)
    with pytest.raises(ModelError, match=r"model m: .*model\.bin") as refused:
        loaded(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (('architecture = "torchvision:resnet81"',), "torchvision has no architecture 'resnet81'"),
        (('architecture = "torchvision:resnet18"', "arguments = { classes = 3 }"), "cannot be built with arguments"),
        (('architecture = "timm:resnet18"',), "needs timm, which is not usable here"),
    ],
)
def test_an_architecture_that_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    write_card(tmp_path, 'name = "m"', 'format = "state-dict"', *lines, *TENSORS)
    with pytest.raises(ModelError, match=sentence):
        load(read_card(tmp_path), device="cpu", runtime="torch", random_weights=True)


def exported(folder: Path, **options: object) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_module("tensors"), (torch.zeros(1, 3, 7),), str(folder / "model.onnx"), dynamo=False, **options
        )


def test_an_onnx_file_with_a_batch_of_one_runs_item_by_item(tmp_path: Path) -> None:
    made = make(tmp_path, "torchscript", "tensors")
    exported(made.folder)
    card = (made.folder / CARD_FILE).read_text().replace("torchscript", "onnx").replace("model.pt", "model.onnx")
    (made.folder / CARD_FILE).write_text(card)
    inputs = made.inputs(3)
    assert_same(answer(loaded(made.folder), inputs), made.expected(inputs))


@pytest.mark.parametrize("items", [1, 3, 4, 5, 8])
def test_an_onnx_file_with_a_larger_fixed_batch_is_filled_up(tmp_path: Path, items: int) -> None:
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    write_card(tmp_path, 'name = "m"', 'format = "onnx"', 'file = "m.onnx"', *TENSORS)
    given = np.arange(2 * items, dtype=np.float32).reshape(items, 2)
    answered = loaded(tmp_path).answer({"x": given}, errors=[""] * items)
    assert answered["y"].tolist() == (2 * given).tolist()


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
@pytest.mark.parametrize("size", [1, 4])
def test_an_exported_program_with_a_fixed_batch_is_filled_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, runtime: str
) -> None:
    import torch

    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": x + y, "more": (x * y).sum(1)}

    arguments = (torch.zeros(size, 2), torch.zeros(size, 2))
    torch.export.save(torch.export.export(Sums(), arguments), tmp_path / "net.pt2")
    assert main(["new", str(tmp_path / "m"), "--from", str(tmp_path / "net.pt2")]) == 0
    assert f"the program takes batches of {size} only" in capsys.readouterr().out
    assert read_card(tmp_path / "m").max_batch == size
    assert main(["convert", str(tmp_path / "m")]) == 0
    model = loaded(tmp_path / "m", runtime=runtime)
    for items in (1, 3, 4, 5):
        x = np.arange(2 * items, dtype=np.float32).reshape(items, 2)
        found = model.answer({"x": x, "y": x}, errors=[""] * items)
        assert found["sum"].tolist() == (2 * x).tolist()
        assert found["more"].tolist() == (x * x).sum(1).tolist()


def test_outputs_that_the_card_leaves_out_need_not_be_tensors(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.eye(2, dtype=np.float32), [0, 1])
    (tmp_path / "net.onnx").write_bytes(to_onnx(model, np.eye(2, dtype=np.float32)).SerializeToString())
    assert main(["new", str(tmp_path / "m"), "--from", str(tmp_path / "net.onnx")]) == 0
    answered = loaded(tmp_path / "m").answer({"X": np.eye(2, dtype=np.float32)}, errors=["", ""])
    assert answered["output_label"].tolist() == [0, 1]


def test_a_text_for_onnx_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    tensors = ('inputs = [{ name = "x", datatype = "BYTES" }]', 'outputs = [{ name = "y", datatype = "BYTES" }]')
    write_card(tmp_path, 'name = "m"', 'format = "onnx"', 'file = "m.onnx"', *tensors)
    model = loaded(tmp_path)
    assert model.answer({"x": np.array(["ä".encode()], object)}, errors=[""])["y"].tolist() == ["ä".encode()]
    with pytest.raises(WireError, match="item 1 of the request is broken: input 'x' must be UTF-8 text"):
        model.answer({"x": np.array([b"a", b"\xff"], object)}, errors=["", ""])


def test_an_onnx_file_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    exported(tmp_path)
    outputs = 'outputs = [{ name = "a", datatype = "FP32" }, { name = "b", datatype = "FP32" }]'
    write_card(tmp_path, 'name = "m"', 'format = "onnx"', 'file = "model.onnx"', TENSORS[0], outputs)
    with pytest.raises(ModelError, match=r"model m gives 1 outputs .*, but its card names 2 \(a, b\)"):
        loaded(tmp_path)


def test_maps_of_scikit_learn_are_refused_with_what_to_do(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.eye(2, dtype=np.float32), [0, 1])
    (tmp_path / "model.onnx").write_bytes(to_onnx(model, np.eye(2, dtype=np.float32)).SerializeToString())
    outputs = 'outputs = [{ name = "label", datatype = "INT64" }, { name = "probabilities", datatype = "FP32" }]'
    write_card(tmp_path, 'name = "m"', 'format = "onnx"', 'file = "model.onnx"', TENSORS[0], outputs)
    with pytest.raises(ModelError, match="only tensors can be served; export .* with options={'zipmap': False}"):
        loaded(tmp_path)


@pytest.mark.parametrize(("model_format", "runtime"), [("onnx", "torch"), ("python", "onnxruntime")])
def test_a_runtime_that_does_not_run_the_format_is_refused(tmp_path: Path, model_format: str, runtime: str) -> None:
    folder = make(tmp_path, model_format, "several").folder
    with pytest.raises(ModelError, match=f"cannot run on '{runtime}'"):
        loaded(folder, runtime=runtime)


def test_the_command_converts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, "torchscript", "tensors").folder
    assert main(["convert", str(folder)]) == 0
    (path,) = (folder / ".converted").glob("*.onnx")
    assert str(path) in capsys.readouterr().out
    assert loaded(folder).runtime.name == "onnxruntime"


def test_the_command_says_what_needs_no_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(make(tmp_path, "python", "tensors").folder)]) == 2
    assert "is of format python: only models of torch are converted" in capsys.readouterr().err
