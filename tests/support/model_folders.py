"""Small real models of every format, made on the spot as folders with cards, with inputs and the right outputs.

Kinds: "picture", "tensors" (with an axis of any length), "several" (inputs and outputs), "ragged" (detections).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

FORMATS = ("onnx", "torchscript", "torch-export", "state-dict", "python")
KINDS = ("picture", "tensors", "several", "ragged")
SIDE = 32
_MEAN, _STD = 0.5, 0.25


@dataclass(frozen=True)
class Made:
    """A model's folder.

    Attributes:
        folder: with model.toml and files; its name is that of the model.
        inputs: returns inputs of a number of items, as clients send them: a picture is an encoded PNG.
        expected: returns what the framework itself answers to such inputs, rows of ragged outputs included.
    """

    folder: Path
    inputs: Callable[[int], Arrays]
    expected: Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]


def make(parent: Path, model_format: str, kind: str) -> Made:
    """Makes a model of one of FORMATS and KINDS in a new folder of `parent`."""
    folder = parent / f"{model_format}-{kind}"
    folder.mkdir(parents=True)
    if model_format == "python":
        return _python(folder, kind)
    if model_format == "state-dict":
        return _state_dict(folder, kind)
    if model_format == "onnx" and kind == "tensors":
        return scikit_learn(folder)
    return _torch(folder, model_format, kind)


def random_inputs(kind: str, items: int) -> Arrays:
    """Returns inputs of each kind, the same at every call; the first items do not depend on how many follow."""
    made = [_item(kind, np.random.default_rng(index)) for index in range(items)]
    return {name: np.stack([item[name] for item in made]) for name in made[0]}


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Returns red-green-blue pixels as a PNG file."""
    import cv2

    return bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())


def normalised(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns PNG files as a network's input: the mean and deviation of the cards here."""
    import cv2

    pixels = [np.asarray(cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)) for one in pictures]
    return ((np.stack(pixels)[:, :, :, ::-1] / 255 - _MEAN) / _STD).astype(np.float32).transpose(0, 3, 1, 2)


def _item(kind: str, rng: np.random.Generator) -> Arrays:
    if kind == "picture":
        return {"image": np.array(png(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)), dtype=np.object_)}
    if kind == "tensors":
        return {"x": rng.normal(size=(3, 7)).astype(np.float32)}
    if kind == "several":
        return {"a": rng.normal(size=4).astype(np.float32), "b": np.array(rng.integers(-5, 6), np.int64)}
    return {"x": rng.normal(size=5).astype(np.float32)}


_TENSORS = {
    "picture": (
        'inputs = [{ name = "image", datatype = "BYTES", picture = true }]',
        'outputs = [{ name = "probabilities", datatype = "FP32", shape = [3] }]',
        'activation = "softmax"\nlabels = ["cat", "dog", "owl"]',
        f'[preprocess]\nsize = {SIDE}\nresize = "stretch"\nmean = {_MEAN}\nstd = {_STD}',
    ),
    "tensors": (
        'inputs = [{ name = "x", datatype = "FP32", shape = [3, -1] }]',
        'outputs = [{ name = "y", datatype = "FP32", shape = [2] }]',
    ),
    "several": (
        'inputs = [{ name = "a", datatype = "FP32", shape = [4] }, { name = "b", datatype = "INT64", shape = [] }]',
        'outputs = [{ name = "total", datatype = "FP32", shape = [4] }, { name = "twice", datatype = "INT64" }]',
    ),
    "ragged": (
        'inputs = [{ name = "x", datatype = "FP32", shape = [5] }]',
        'outputs = [{ name = "boxes", datatype = "FP32", shape = [2], ragged = true },'
        ' { name = "places", datatype = "INT64", ragged = true }]',
    ),
}


def write_card(folder: Path, *lines: str) -> None:
    """Writes a card of these lines."""
    (folder / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def softmax(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns the softmax along the last axis."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


# Networks of torch: one module for each kind.


def torch_module(kind: str) -> Any:
    """Returns a module of torch with seeded weights; its inputs are those of the card, pictures normalised."""
    import torch
    from torch import nn

    class Picture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
            )
            self.classify = nn.Linear(32, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.classify(self.features(image).flatten(1))

    class Tensors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.mean(2))

    class Several(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a + b.unsqueeze(1), b * 2

    class Ragged(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            positive = x > 0
            at = torch.nonzero(positive)
            value, place = x[at[:, 0], at[:, 1]], at[:, 1]
            return torch.stack((value, 2 * value), 1), place, positive.sum(1)

    made: Any = {"picture": Picture, "tensors": Tensors, "several": Several, "ragged": Ragged}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return made().eval()


def torch_arguments(kind: str, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[Any, ...]:
    """Returns the arguments of a module of `kind` for inputs as clients send them."""
    import torch

    if kind == "picture":
        return (torch.from_numpy(np.ascontiguousarray(normalised(inputs["image"]))),)
    return tuple(torch.from_numpy(array) for array in inputs.values())


def torch_answer(kind: str, module: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Returns what a module of `kind` answers."""
    import torch

    with torch.inference_mode():
        given = module(*torch_arguments(kind, inputs))
    values = [tensor.numpy() for tensor in (given if isinstance(given, tuple) else (given,))]
    if kind == "picture":
        return {"probabilities": softmax(values[0])}
    if kind == "ragged":
        return {"boxes": values[0], "places": values[1], "boxes_rows": values[2], "places_rows": values[2]}
    return dict(zip(("y",) if kind == "tensors" else ("total", "twice"), values, strict=True))


def _torch(folder: Path, model_format: str, kind: str) -> Made:
    import torch

    module = torch_module(kind)
    file = {"onnx": "model.onnx", "torchscript": "model.pt", "torch-export": "model.pt2"}[model_format]
    arguments = torch_arguments(kind, random_inputs(kind, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if model_format == "torchscript":
            torch.jit.save(torch.jit.script(module), str(folder / file))
        elif model_format == "torch-export":
            torch.export.save(_exported(module, kind, arguments), str(folder / file))
        else:
            _write_onnx(module, kind, arguments, folder / file)
    write_card(folder, f'format = "{model_format}"', f'file = "{file}"', *_TENSORS[kind])
    return Made(folder, lambda items: random_inputs(kind, items), lambda inputs: torch_answer(kind, module, inputs))


def _exported(module: Any, kind: str, arguments: tuple[Any, ...]) -> Any:
    import torch

    batch = torch.export.Dim.DYNAMIC
    axes = [{0: batch, 2: batch} if kind == "tensors" else {0: batch} for _ in arguments]
    return torch.export.export(module, arguments, dynamic_shapes=tuple(axes))


def _write_onnx(module: Any, kind: str, arguments: tuple[Any, ...], path: Path) -> None:
    import torch

    names = {"picture": ["image"], "tensors": ["x"], "several": ["a", "b"], "ragged": ["x"]}[kind]
    # With rows under one name for both: an ONNX file may name them as it likes.
    outputs = {"picture": ["logits"], "tensors": ["y"], "several": ["total", "twice"]}.get(
        kind, ["boxes", "places", "boxes_rows"]
    )
    axes = {name: {0: "items"} for name in (*names, *outputs)}
    if kind == "tensors":
        axes["x"][2] = "length"
    torch.onnx.export(
        module, arguments, str(path), dynamo=False, input_names=names, output_names=outputs, dynamic_axes=axes
    )


# scikit-learn, architectures, handlers.


def scikit_learn(folder: Path) -> Made:
    """Makes a classifier of scikit-learn as an ONNX file: four numbers in, a label and probabilities out."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, labels = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(features, labels)
    content = to_onnx(model, features[:1], options={"zipmap": False}).SerializeToString()
    (folder / "iris.onnx").write_bytes(content)
    write_card(
        folder,
        'format = "onnx"',
        'file = "iris.onnx"',
        'inputs = [{ name = "X", datatype = "FP32", shape = [4] }]',
        'outputs = [{ name = "probabilities", datatype = "FP32", shape = [3] },'
        ' { name = "label", datatype = "INT64", shape = [] }]',
    )

    def expected(inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        probabilities = model.predict_proba(inputs["X"]).astype(np.float32)
        return {"probabilities": probabilities, "label": model.predict(inputs["X"]).astype(np.int64)}

    return Made(folder, lambda items: {"X": np.resize(features[::37], (items, 4))}, expected)


def _state_dict(folder: Path, kind: str) -> Made:
    """Makes an architecture of torchvision with seeded weights."""
    import torch
    import torchvision

    name, arguments, card = _ARCHITECTURES[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        more = {"weights_backbone": None} if kind == "ragged" else {}
        network = torchvision.models.get_model(name, weights=None, **more, **arguments).eval()
    torch.save(network.state_dict(), folder / "weights.pt")
    given = ", ".join(f"{key} = {value}" for key, value in arguments.items())
    write_card(
        folder,
        'format = "state-dict"',
        'file = "weights.pt"',
        f'architecture = "torchvision:{name}"',
        f"arguments = {{ {given} }}",
        *card,
    )

    def inputs(items: int) -> Arrays:
        if kind == "picture":
            return random_inputs("picture", items)
        side, names = (128, ("first", "second")) if kind == "several" else (SIDE, ("x",))
        made: Arrays = {}
        for name_of_input in names:
            rngs = [np.random.default_rng([index, len(name_of_input)]) for index in range(items)]
            made[name_of_input] = np.stack([rng.random((3, side, side), np.float32) for rng in rngs])
        return made

    return Made(folder, inputs, lambda given: _architecture_answer(kind, network, given))


_ARCHITECTURES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "picture": ("resnet18", {"num_classes": 3}, _TENSORS["picture"]),
    "tensors": (
        "mobilenet_v3_small",
        {"num_classes": 3},
        (
            'inputs = [{ name = "x", datatype = "FP32", shape = [3, -1, -1] }]',
            'outputs = [{ name = "y", datatype = "FP32", shape = [3] }]',
        ),
    ),
    "several": (
        "raft_small",
        {},
        (
            'inputs = [{ name = "first", datatype = "FP32", shape = [3, 128, 128] },'
            ' { name = "second", datatype = "FP32", shape = [3, 128, 128] }]',
            "outputs = [",
            *(f'  {{ name = "flow_{step}", datatype = "FP32", shape = [2, 128, 128] }},' for step in range(12)),
            "]",
        ),
    ),
    "ragged": (
        "ssdlite320_mobilenet_v3_large",
        {"num_classes": 3, "detections_per_img": 5, "score_thresh": 0.0},
        (
            'inputs = [{ name = "x", datatype = "FP32", shape = [3, -1, -1] }]',
            'outputs = [{ name = "boxes", datatype = "FP32", shape = [4], ragged = true },'
            ' { name = "scores", datatype = "FP32", ragged = true },'
            ' { name = "labels", datatype = "INT64", ragged = true }]',
        ),
    ),
}


def _architecture_answer(kind: str, network: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    import torch

    with torch.inference_mode():
        if kind == "picture":
            return {"probabilities": softmax(network(*torch_arguments(kind, inputs)).numpy())}
        given = network(*(torch.from_numpy(array) for array in inputs.values()))
    if kind == "tensors":
        return {"y": given.numpy()}
    if kind == "several":
        return {f"flow_{step}": flow.numpy() for step, flow in enumerate(given)}
    columns = {name: [item[name].numpy() for item in given] for name in ("boxes", "scores", "labels")}
    rows = np.array([len(scores) for scores in columns["scores"]], np.int64)
    return {
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        **{f"{name}_rows": rows for name in columns},
    }


_HANDLERS = {
    "picture": """
    def decode(self, element):
        if element[:4] != b"\\x89PNG":
            raise ValueError("this handler takes PNG files only")
        import cv2
        pixels = cv2.imdecode(np.frombuffer(element, np.uint8), cv2.IMREAD_COLOR)
        return pixels[:, :, ::-1].mean(axis=(0, 1)).astype(np.float32) / 255

    def predict(self, arrays):
        return {"probabilities": arrays["image"] * self.factor}
""",
    "tensors": """
    def predict(self, arrays):
        return {"y": np.stack((arrays["x"].mean((1, 2)), arrays["x"].max((1, 2))), 1) * self.factor}
""",
    "several": """
    def predict(self, arrays):
        return {"total": arrays["a"] + arrays["b"][:, None], "twice": arrays["b"] * self.factor}
""",
    "ragged": """
    def predict(self, arrays):
        places = [np.nonzero(row > 0)[0] for row in arrays["x"]]
        boxes = [np.stack((row[at], self.factor * row[at]), 1) for row, at in zip(arrays["x"], places)]
        return {"boxes": boxes, "places": places}
""",
}


def _python(folder: Path, kind: str) -> Made:
    """Makes a handler that reads its factor, 2, from a file when it loads."""
    (folder / "factor.txt").write_text("2\n", encoding="ascii")
    (folder / "factors.py").write_text(
        "from pathlib import Path\n\n\ndef factor():\n"
        '    return int((Path(__file__).parent / "factor.txt").read_text())\n',
        encoding="ascii",
    )
    (folder / "handler.py").write_text(
        "import numpy as np\n\nfrom factors import factor\n\n\nclass Handler:\n"
        "    def load(self, device):\n        self.factor = factor()\n" + _HANDLERS[kind],
        encoding="ascii",
    )
    tensors = _TENSORS[kind][:2]
    write_card(
        folder,
        'format = "python"',
        'class = "handler.py:Handler"',
        'files = ["factor.txt", "factors.py"]',
        *tensors,
    )
    return Made(folder, lambda items: random_inputs(kind, items), lambda inputs: _handler_answer(kind, inputs))


def _handler_answer(kind: str, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    if kind == "picture":
        pixels = normalised(inputs["image"]) * _STD + _MEAN
        return {"probabilities": (pixels.mean(axis=(2, 3)) * 2).astype(np.float32)}
    if kind == "tensors":
        x = inputs["x"]
        return {"y": np.stack((x.mean((1, 2)), x.max((1, 2))), 1) * 2}
    if kind == "several":
        return {"total": inputs["a"] + inputs["b"][:, np.newaxis].astype(np.float32), "twice": inputs["b"] * 2}
    places = [np.nonzero(row > 0)[0] for row in inputs["x"]]
    values = np.concatenate([row[at] for row, at in zip(inputs["x"], places, strict=True)])
    rows = np.array([len(at) for at in places], np.int64)
    return {
        "boxes": np.stack((values, 2 * values), 1),
        "places": np.concatenate(places),
        "boxes_rows": rows,
        "places_rows": rows,
    }
