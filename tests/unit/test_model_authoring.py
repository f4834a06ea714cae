"""`edgeburst-model new`: what a file says becomes the card, what cannot be carried over is said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.authoring.command import main
from models.authoring.draft import AuthoringError, Draft, card_text
from models.authoring.text_format import parse_text_format
from models.card import TensorSpec, file_sha256
from models.card_reader import read_card
from models.errors import ModelError
from models.loading import load
from serverless_fn import baking

onnx = pytest.importorskip("onnx")


def onnx_file(path: Path, *, batch: int | str = "n", shape: tuple[int | str, ...] = (4,)) -> Path:
    """Writes a network that doubles its input."""
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [onnx.helper.make_tensor_value_info("x", float32, [batch, *shape])],
        [onnx.helper.make_tensor_value_info("y", float32, [batch, *shape])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def test_an_onnx_file_says_what_it_takes_and_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = onnx_file(tmp_path / "net.onnx", shape=(3, "width"))

    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0

    card = read_card(tmp_path / "mine")
    assert (card.name, card.format, card.file) == ("mine", "onnx", "net.onnx")
    assert card.inputs == (TensorSpec("x", "FP32", (3, -1)),)
    assert card.outputs == (TensorSpec("y", "FP32", (3, -1)),)
    card.check_files()
    assert list(card.sha256) == ["net.onnx"]
    assert "takes x: FP32 [n, 3, any]" in capsys.readouterr().out


def test_a_fixed_batch_is_kept_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = onnx_file(tmp_path / "net.onnx", batch=1)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0
    assert read_card(tmp_path / "mine").max_batch == 1
    assert "the file takes batches of 1 only" in capsys.readouterr().out


def test_several_inputs_of_equal_shapes_become_pictures(tmp_path: Path) -> None:
    float32 = onnx.TensorProto.FLOAT
    left, right, y = (
        onnx.helper.make_tensor_value_info(name, float32, ["n", 3, 32, 32]) for name in ("left", "right", "y")
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["left", "right"], ["y"])], "g", [left, right], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    assert main(["new", str(tmp_path / "mine"), "--from", str(tmp_path / "net.onnx"), "--picture"]) == 0
    assert [spec.picture for spec in read_card(tmp_path / "mine").inputs] == [True, True]
    assert main(["check", str(tmp_path / "mine")]) == 0


@pytest.mark.parametrize("location", ["tensors.bin", "more/w"])
def test_weights_beside_an_onnx_file_come_along_whatever_their_name(tmp_path: Path, location: str) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32), "w")
    source = onnx_file(tmp_path / "from" / "net.onnx", shape=(400,))
    model = onnx.load(source)
    model.graph.node[0].input[1] = "w"
    model.graph.initializer.append(weights)
    (tmp_path / "from" / location).parent.mkdir(exist_ok=True)
    onnx.save(model, source, save_as_external_data=True, location=location, size_threshold=0)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.further_files, sorted(card.sha256)) == ((location,), sorted(["net.onnx", location]))
    assert main(["check", str(tmp_path / "mine")]) == 0
    # Other weights are another model.
    identity = card.identity()
    text = (tmp_path / "mine" / "model.toml").read_text()
    without_hashes = "\n".join(line for line in text.splitlines() if not line.startswith("sha256"))
    (tmp_path / "mine" / "model.toml").write_text(without_hashes)
    before = read_card(tmp_path / "mine").identity()
    content = (tmp_path / "mine" / location).read_bytes()
    (tmp_path / "mine" / location).write_bytes(b"\1" + content[1:])
    assert len({identity, before, read_card(tmp_path / "mine").identity()}) == 3


def with_weights_apart(folder: Path, name: str = "net.onnx") -> Path:
    """Writes a network whose weights are in the file `w.bin` beside it."""
    source = onnx_file(folder / name, shape=(400,))
    model = onnx.load(source)
    model.graph.node[0].input[1] = "w"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32), "w"))
    onnx.save(model, source, save_as_external_data=True, location="w.bin", size_threshold=0)
    return source


def test_weights_that_the_card_does_not_name_are_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_weights_apart(tmp_path / "mine")
    tensors = '[{ name = "NAME", datatype = "FP32", shape = [400] }]'
    inputs, outputs = (tensors.replace("NAME", name) for name in ("x", "y"))
    card = f'format = "onnx"\nfile = "net.onnx"\ninputs = {inputs}\noutputs = {outputs}\n'
    (tmp_path / "mine" / "model.toml").write_text(card)
    assert main(["check", str(tmp_path / "mine")]) == 2
    assert "keeps weights in 'w.bin', which the card does not name: put 'w.bin' beside" in capsys.readouterr().err
    assert baking.main([str(tmp_path)]) == 2
    assert "which the card does not name" in capsys.readouterr().err
    (tmp_path / "mine" / "model.toml").write_text('files = ["./w.bin"]\n' + card)
    assert main(["check", str(tmp_path / "mine")]) == 0
    source = with_weights_apart(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="save the network in one file"):
        load(read_card(tmp_path / "mine"), device="cpu", weights=source, weights_sha256=file_sha256(source))


def test_weights_apart_that_are_missing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = with_weights_apart(tmp_path / "from")
    (tmp_path / "from" / "w.bin").unlink()
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 2
    assert "has weights in 'w.bin', which is not beside it: copy it there" in capsys.readouterr().err


def test_weights_apart_of_a_model_of_triton_come_along(tmp_path: Path) -> None:
    with_weights_apart(tmp_path / "net" / "1", "model.onnx")
    (tmp_path / "net" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 4\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 400 }\noutput { name: "y" data_type: TYPE_FP32 dims: 400 }\n'
    )
    assert main(["new", str(tmp_path / "mine"), "--from", str(tmp_path / "net")]) == 0
    assert read_card(tmp_path / "mine").files() == ("model.onnx", "w.bin")
    assert main(["check", str(tmp_path / "mine")]) == 0


def detector(path: Path, *, counts: bool, batch: int | str = "n") -> Path:
    """Writes a network that gives a row [place] and the value for each positive number of an item."""
    tensor = onnx.helper.make_tensor_value_info
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    node = onnx.helper.make_node
    nodes = [
        node("Greater", ["x", "zero"], ["found"]),
        node("NonZero", ["found"], ["turned"]),
        node("Transpose", ["turned"], ["at"]),
        node("GatherND", ["x", "at"], ["scores"]),
        node("Gather", ["at", "one"], ["boxes"], axis=1),
        node("Cast", ["found"], ["ones"], to=int64),
        node("ReduceSum", ["ones", "one"], ["boxes_rows"], keepdims=0),
    ]
    constants = {"zero": np.float32(0.5), "one": np.array([1])}
    graph = onnx.helper.make_graph(
        nodes if counts else nodes[:-2],
        "detector",
        [tensor("x", float32, [batch, 6])],
        [
            tensor("boxes", int64, ["found", 1]),
            tensor("scores", float32, ["found"]),
            *([tensor("boxes_rows", int64, [batch])] if counts else []),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("counts", [True, False])
def test_detections_are_ragged_whether_or_not_their_rows_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counts: bool, batch: int | str
) -> None:
    source = detector(tmp_path / "net.onnx", counts=counts, batch=batch)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0
    card = read_card(tmp_path / "mine")
    assert [(spec.name, spec.ragged) for spec in card.outputs] == [("boxes", True), ("scores", True)]
    said = capsys.readouterr().out
    assert "gives boxes: INT64 [rows, 1]" in said
    assert ("does not count the rows of each item" in said) is not counts
    assert main(["check", str(tmp_path / "mine")]) == 0
    model = load(card, device="cpu")
    x = np.array([[0, 1, 2, 0, 3, 0], [0] * 6, [4, 0, 0, 0, 0, 0]], np.float32)
    answer = model.answer({"x": x}, errors=[""] * 3)
    assert answer["scores"].tolist() == [1, 2, 3, 4]
    assert answer["boxes"][:, 0].tolist() == [1, 2, 4, 0]
    assert answer["boxes_rows"].tolist() == answer["scores_rows"].tolist() == [3, 0, 1]


def test_a_card_that_forgets_that_rows_are_ragged_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = detector(tmp_path / "net.onnx", counts=False)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0
    path = tmp_path / "mine" / "model.toml"
    path.write_text(path.read_text().replace(", ragged = true", ""))
    assert main(["check", str(tmp_path / "mine")]) == 2
    assert "or set ragged = true if items have unlike numbers of rows" in capsys.readouterr().err


def test_what_a_handler_reads_comes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nimport numpy as np\n\n\nclass Net:\n    def load(self, device):\n"
        "        self.w = np.load(Path(__file__).parent / 'w.npy')\n\n    def predict(self, inputs):\n"
        "        return {'y': inputs['x'] @ self.w}\n"
    )
    np.save(tmp_path / "w.npy", np.ones((4, 2), np.float32))
    new = ["new", str(tmp_path / "mine"), "--from", str(tmp_path / "net.py"), "--class", "Net"]
    new += ["--input", "x=FP32[4]", "--output", "y=FP32[2]"]
    assert main(new) == 0
    assert "comes along with --file FILE" in capsys.readouterr().out
    assert main([*new, "--overwrite", "--file", str(tmp_path / "w.npy")]) == 0
    assert read_card(tmp_path / "mine").files() == ("net.py", "w.npy")
    assert main(["check", str(tmp_path / "mine")]) == 0
    source = onnx_file(tmp_path / "net.onnx")
    assert main(["new", str(tmp_path / "other"), "--from", str(source), "--file", "x"]) == 2
    assert "--file is for handlers in Python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "layout", "seen"), [((3, 224, 224), "CHW", (3, 224, 224)), ((96, 128, 1), "HWC", (96, 128, 1))]
)
def test_a_picture_gets_the_networks_size(
    tmp_path: Path, shape: tuple[int, ...], layout: str, seen: tuple[int, ...]
) -> None:
    source = onnx_file(tmp_path / "net.onnx", shape=shape)
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--picture"]) == 0
    card = read_card(tmp_path / "mine")
    assert card.inputs == (TensorSpec("x", "BYTES", picture=True),)
    assert card.preprocess is not None
    assert card.preprocess.layout == layout
    assert card.preprocess.input_shape == seen


def test_labels_are_copied_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = onnx_file(tmp_path / "net.onnx", shape=(2,))
    labels = tmp_path / "classes.txt"
    labels.write_text("cat\ndog\n")
    options = ["--labels", str(labels), "--activation", "softmax", "--max-batch", "8"]
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), *options]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.labels, card.activation, card.max_batch) == (("cat", "dog"), "softmax", 8)
    labels.write_text("cat\n")
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--overwrite", *options]) == 2
    assert "there are 1 labels, but output 'y' has 2 values" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "gone.onnx"], "gone.onnx is not there"),
        (["--from", "bad.onnx"], "bad.onnx cannot be read as ONNX"),
        (["--from", "bad.pt"], "bad.pt is no file of torch"),
        (["--from", "net.onnx", "--output", "y=FP32[2]"], "--output is for handlers in Python"),
        (["--from", "net.onnx", "--picture"], "--picture needs a model with one input of three axes"),
        (["--from", "handler.py"], "a handler does not say what it takes"),
        (["--from", "net.onnx", "--name", "a b"], "the model's name 'a b' must be"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_file(tmp_path / "net.onnx")
    for name in ("bad.onnx", "bad.pt", "handler.py"):
        (tmp_path / name).write_bytes(b"nothing")

    assert main(["new", "mine", *arguments]) == 2

    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_card_that_is_there_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = onnx_file(tmp_path / "net.onnx")
    arguments = ["new", str(tmp_path / "mine"), "--from", str(source)]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_a_file_in_the_folder_stays_where_it_is(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "mine" / "net.onnx")
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0
    assert [path.name for path in sorted((tmp_path / "mine").iterdir())] == ["model.toml", "net.onnx"]


def test_a_handler_is_described_by_the_user(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("class Detector: ...\n")
    described = ["--class", "Detector", "--input", "x=FP32[4]", "--output", "y=INT64", "--argument", "limit=0.5"]
    assert main(["new", str(tmp_path / "mine"), "--from", str(handler), *described]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.format, card.handler) == ("python", "handler.py:Detector")
    assert card.outputs == (TensorSpec("y", "INT64"),)
    assert card.arguments == {"limit": 0.5}


TRITON = """\
# A classifier
name: "cats"
platform: "onnxruntime_onnx"
max_batch_size : 16
input [
  { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, 32, 32 ] }
]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3, 32, 32 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_GPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
parameters { key: "k" value: { string_value: "v" } }
"""


def triton_model(tmp_path: Path, config: str = TRITON) -> Path:
    folder = tmp_path / "repository" / "cats"
    onnx_file(folder / "1" / "model.onnx", shape=(3, 32, 32))
    onnx_file(folder / "12" / "model.onnx", shape=(3, 32, 32))
    (folder / "config.pbtxt").write_text(config)
    (folder / "labels.txt").write_text("one\ntwo\n")
    return folder


def test_a_model_of_triton_is_carried_over_and_the_rest_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = triton_model(tmp_path)
    assert main(["new", str(tmp_path / "mine"), "--from", str(folder)]) == 0
    card = read_card(tmp_path / "mine")
    assert (card.name, card.format, card.max_batch, card.labels) == ("cats", "onnx", 16, ("one", "two"))
    assert card.inputs == (TensorSpec("x", "FP32", (3, 32, 32)),)
    out = capsys.readouterr().out
    for key in ("instance_group", "dynamic_batching", "parameters"):
        assert f"`{key}` of config.pbtxt is not carried over" in out


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"onnxruntime_onnx"', '"tensorrt_plan"', "backend 'tensorrt_plan' can be served by Triton only"),
        ('"onnxruntime_onnx"', '"pytorch_libtorch"', "holds no model.pt"),
        ("TYPE_FP32, format", "TYPE_BF16, format", "tensor 'x' is BF16"),
        ("max_batch_size : 16", "max_batch_size: 0", "has the fixed shape [3, 32, 32]"),
        ("output [ {", "out [ {", "has no `output`"),
        ("input [", "input ]", "line 5: ']' stands where a value should"),
        ('name: "cats"', "name: ~", "line 2: "),
        ("max_batch_size : 16", "max_batch_size: many", "a field has a value of another kind"),
        ("[ 3, 32, 32 ]", "[ three ]", "a field has a value of another kind"),
        ("output [ {", "output: [ 3, {", "a field has a value of another kind"),
        ("TYPE_FP32, format", "TYPE_INVALID, format", "tensor 'x' has data_type TYPE_INVALID"),
    ],
)
def test_a_model_that_only_triton_serves_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    folder = triton_model(tmp_path, TRITON.replace(old, new, 1))
    assert main(["new", str(tmp_path / "cats"), "--from", str(folder)]) == 2
    assert sentence in capsys.readouterr().err


def test_without_tritons_batching_an_open_first_axis_is_the_batch(tmp_path: Path) -> None:
    config = TRITON.replace("max_batch_size : 16", "max_batch_size: 0").replace("[ 3, 32, 32 ]", "[ -1, 3, 32, 32 ]")
    assert main(["new", str(tmp_path / "cats"), "--from", str(triton_model(tmp_path, config))]) == 0
    assert read_card(tmp_path / "cats").inputs == (TensorSpec("x", "FP32", (3, 32, 32)),)


def test_settings_of_mlserver_become_a_handler_that_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joblib = pytest.importorskip("joblib")
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    features, classes = random.random((30, 4)), random.integers(0, 3, 30)
    estimator = LogisticRegression().fit(features, classes)
    source = tmp_path / "iris"
    source.mkdir()
    joblib.dump(estimator, source / "model.joblib")
    settings = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
        ],
        "parameters": {"uri": "./model.joblib", "version": "v1"},
        "max_batch_size": 10,
        "max_batch_time": 0.5,
    }
    (source / "model-settings.json").write_text(json.dumps(settings))

    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 0

    assert "`max_batch_time` is not carried over" in capsys.readouterr().out
    card = read_card(tmp_path / "mine")
    card.check_files()
    assert (card.name, card.format, card.max_batch) == ("iris", "python", 10)
    assert card.files() == ("handler.py", "model.joblib")
    assert main(["new", str(tmp_path / "mine"), "--from", str(source)]) == 2
    assert main(["new", str(tmp_path / "mine"), "--from", str(source), "--overwrite", "--name", "other"]) == 0
    assert read_card(tmp_path / "mine").name == "other"
    scope: dict[str, object] = {"__file__": str(tmp_path / "mine" / "handler.py")}
    exec((tmp_path / "mine" / "handler.py").read_text(), scope)
    model = scope["Model"]()  # type: ignore[operator]
    model.load("cpu")
    answer = model.predict({"features": features[:3]})
    assert answer["predict"].tolist() == estimator.predict(features[:3]).tolist()
    assert answer["predict_proba"] == pytest.approx(estimator.predict_proba(features[:3]))


def test_other_runtimes_of_mlserver_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model-settings.json"
    path.write_text('{"name": "m", "implementation": "mlserver_mlflow.MLflowRuntime"}')
    assert main(["new", str(tmp_path / "mine"), "--from", str(path)]) == 2
    assert "mlserver_mlflow.MLflowRuntime runs in MLServer only" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "tensors", ['["x"]', "3", '[{"name": "x"}]', '[{"name": "x", "datatype": "FP31"}]', '[{"datatype": "FP32"}]']
)
def test_settings_of_another_kind_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tensors: str
) -> None:
    path = tmp_path / "model-settings.json"
    (tmp_path / "model.joblib").write_bytes(b"")
    path.write_text(f'{{"implementation": "mlserver_sklearn.SKLearnModel", "inputs": {tensors}}}')
    assert main(["new", str(tmp_path / "mine"), "--from", str(path)]) == 2
    assert capsys.readouterr().err.strip().endswith("correct it")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("formula", "finite", "sentence"),
    [
        ("x * float('nan')", True, "output 'y' of a made-up item holds NaN or infinity"),
        ("x * float('nan')", False, ""),
        ("x / (len(x) == 1)", False, "is NaN or infinity in a batch or alone, not in both"),
    ],
)
def test_a_model_that_gives_no_numbers_does_not_pass_its_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], formula: str, finite: bool, sentence: str
) -> None:
    (tmp_path / "handler.py").write_text(
        f"class Own:\n    def predict(self, arrays):\n        x = arrays['x']\n        return {{'y': {formula}}}\n"
    )
    (tmp_path / "model.toml").write_text(
        'name = "own"\nformat = "python"\nclass = "handler.py:Own"\ninputs = [{ name = "x", datatype = "FP32" }]\n'
        f'outputs = [{{ name = "y", datatype = "FP32"{"" if finite else ", finite = false"} }}]\n'
    )
    assert main(["check", str(tmp_path)]) == (1 if sentence else 0)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", {}),
        ("a: 1 a: 2", {"a": [1, 2]}),
        ("a: 'x' \"y\"", {"a": ["xy"]}),
        ("a < b: -1.5 >; c: true", {"a": [{"b": [-1.5]}], "c": [True]}),
        ("a [ { }, { b: [] } ]", {"a": [{}, {"b": []}]}),
        (r'a: "\"\n"', {"a": ['"\n']}),
    ],
)
def test_text_format_is_read(text: str, message: dict[str, object]) -> None:
    assert parse_text_format(text) == message


@pytest.mark.parametrize("text", ["a", "a:", "{", "a: {", "a: [1", "a b", 'a: "', "a: 1 }", "a {" * 60])
def test_what_is_no_text_format_is_named_by_line(text: str) -> None:
    with pytest.raises(AuthoringError, match=r"^line 1: "):
        parse_text_format(text)


@given(st.text(alphabet="abc:[]{}<>\"'\\ \n,;#1-", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(AuthoringError):
        parse_text_format(text)


NAMES = st.text(min_size=1, max_size=10).filter(lambda name: name.isprintable())


@given(
    st.lists(
        st.builds(
            TensorSpec,
            NAMES,
            st.sampled_from(["FP32", "INT64", "BOOL"]),
            st.lists(st.one_of(st.just(-1), st.integers(1, 9)), max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda spec: spec.name,
    ),
    st.lists(NAMES, max_size=3),
)
def test_what_is_written_is_what_is_read(specs: list[TensorSpec], labels: list[str]) -> None:
    import tempfile

    draft = Draft("onnx", tuple(specs), (TensorSpec("only", "FP32", (-1,)),), file="net.onnx", labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.toml").write_text(card_text(draft, name="m"), "utf-8")
        card = read_card(Path(folder))
    assert (card.inputs, card.labels, card.name) == (tuple(specs), tuple(labels), "m")
