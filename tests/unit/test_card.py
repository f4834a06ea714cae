"""Cards of models: every key is checked by line and name, files by their hash; what a card says is what clients see."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.card import ITEM_ERROR, CardError, TensorSpec
from models.card_check import input_problem
from models.card_reader import read_card
from models.catalogue import card_of, cards_in, names, shipped
from models.errors import ModelError
from scheduler import wire

TENSORS = """\
format = "onnx"
file = "model.onnx"
inputs = [{ name = "x", datatype = "FP32", shape = [3, -1] }, { name = "y", datatype = "INT64", shape = [] }]
outputs = [{ name = "score", datatype = "FP32", shape = [2] }]
"""


def folder_with(tmp_path: Path, card: str, **files: bytes) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(card, encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("_DOT_", ".")).write_bytes(content)
    return folder


def test_a_card_of_tensors_is_read(tmp_path: Path) -> None:
    card = read_card(folder_with(tmp_path, TENSORS))

    assert (card.name, card.format, card.file, card.max_batch) == ("mine", "onnx", "model.onnx", 32)
    assert card.inputs == (TensorSpec("x", "FP32", (3, -1)), TensorSpec("y", "INT64", ()))
    assert [spec.name for spec in card.all_outputs()] == ["score"]


def test_outputs_of_floats_may_be_allowed_to_be_not_finite(tmp_path: Path) -> None:
    allowed = TENSORS.replace("shape = [2] }", "shape = [2], finite = false }")
    assert [spec.finite for spec in read_card(folder_with(tmp_path, TENSORS)).outputs] == [True]
    assert [spec.finite for spec in read_card(folder_with(tmp_path, allowed)).outputs] == [False]


def test_rows_and_item_errors_are_added_to_the_outputs(tmp_path: Path) -> None:
    card = read_card(
        folder_with(
            tmp_path,
            """\
format = "python"
class = "handler.py:Detector"
inputs = [{ name = "image", datatype = "BYTES", picture = true }]
outputs = [
    { name = "boxes", datatype = "FP32", shape = [4], ragged = true },
    { name = "count", datatype = "INT32" },
]
""",
        )
    )

    assert [spec.name for spec in card.all_outputs()] == ["boxes", "count", "boxes_rows", ITEM_ERROR]
    assert card.files() == ("handler.py",)


def test_the_name_of_item_errors_is_the_same_on_the_wire() -> None:
    assert ITEM_ERROR == wire.ITEM_ERROR


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('format = "onnx"', 'format = "onyx"', r"model\.toml:1: `format` is 'onyx'; choose one of torchscript, "),
        ('format = "onnx"\n', "", r"model\.toml: `format` is missing; choose one of"),
        ('file = "model.onnx"\n', "", r"model\.toml: `file` is missing, which format onnx needs"),
        ('file = "model.onnx"', 'fil = "model.onnx"', r"model\.toml:2: key `fil` is unknown; did you mean `file`\?"),
        ('file = "model.onnx"', 'file = "../model.onnx"', r"model\.toml:2: .* must be inside the folder"),
        ('datatype = "FP32", shape = [3', 'datatype = "F32", shape = [3', r"model\.toml:3: 'x' has datatype 'F32'"),
        ("shape = [3, -1]", "shape = [3, 0]", r"model\.toml:3: the shape of 'x' must be a list"),
        ('name = "y"', 'name = "x"', r"model\.toml:3: the name 'x' occurs twice in `inputs`"),
        ("shape = [2] }", "shape = [2], picture = true }", r"model\.toml:4: 'score' cannot be a picture"),
        ("shape = [] }", "shape = [], ragged = true }", r"model\.toml:3: 'y' cannot be ragged"),
        ("shape = [] }", "shape = [], finite = false }", r"model\.toml:3: 'y' needs no `finite`"),
        ('name = "score"', 'name = "item_error"', r"model\.toml:4: the name 'item_error' is the server's own"),
        ("]\n", "]\nmax_batch = 0\n", r"model\.toml:.: `max_batch` must be a whole number from 1 to 4096, not 0"),
        ("]\n", ']\nlabels = ["a"]\n', r"model\.toml:.: there are 1 labels, but output 'score' has 2 values"),
        ("]\n", ']\nactivation = "relu"\n', r"`activation` is 'relu'; choose one of softmax, sigmoid, none"),
        ("]\n", "]\ntolerance = 2\n", r"`tolerance` must be a number above 0, at most 1, not 2"),
        ("]\n", ']\nsha256 = "123"\n', r"must have 64 hexadecimal digits"),
        ("]\n", ']\nsha256 = { "other" = "123" }\n', r"`sha256` names 'other', but the card names only model.onnx"),
        ("]\n", "]\npreprocess = { size = 8 }\n", r"there is `preprocess`, but no input is a picture"),
        ("]\n", ']\narchitecture = "mine:x"\n', r"write torchvision:NAME or timm:NAME"),
        ("]\n", ']\nclass = "handler.Detector"\n', r"write FILE\.py:CLASS, like handler\.py:Detector"),
        ("]\n", ']\nname = "a b"\n', r"the model's name 'a b' must be up to 64 letters"),
        ("]\n", ']\nfiles = ["../x"]\n', r"model\.toml:5: file '\.\./x' must be inside the folder"),
        ("]\n", ']\nlabels = "../x"\n', r"model\.toml:5: file '\.\./x' must be inside the folder"),
        ("]\n", ']\nclass = "../h.py:X"\n', r"model\.toml:5: file '\.\./h\.py' must be inside the folder"),
        ("]\n", ']\nclass = "h.py:X"\n', r"model\.toml:5: `class` is for format python, not onnx; remove it"),
        ("]\n", "]\narguments = { n = 1 }\n", r"model\.toml:5: `arguments` is for format state-dict or python, not"),
        ("]\n", ']\narchitecture = "timm:x"\n', r"model\.toml:5: `architecture` is for format state-dict, not onnx"),
        ("]\n", ']\nlabels = "gone.txt"\n', r"the file of labels 'gone.txt' cannot be read"),
    ],
)
def test_a_wrong_key_is_named_by_line_and_key(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in TENSORS
    at = TENSORS.rindex(old)
    with pytest.raises(CardError, match=sentence) as raised:
        read_card(folder_with(tmp_path, TENSORS[:at] + new + TENSORS[at + len(old) :]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        ("", r"model\.toml:3: input 'image' is a picture, but there is no \[preprocess\]"),
        ("[preprocess]\n", r"model\.toml:5: size is missing"),
        ("[preprocess]\nsize = 8\nresise = 'stretch'\n", r"model\.toml:7: resise is no key of \[preprocess\]"),
        ("[preprocess]\nsize = 8\nstd = [1, 0, 1]\n", r"model\.toml:7: std is 0"),
    ],
)
def test_a_wrong_table_of_a_picture_is_named_by_line_and_key(tmp_path: Path, picture: str, sentence: str) -> None:
    card = (
        'format = "onnx"\nfile = "model.onnx"\n'
        'inputs = [{ name = "image", datatype = "BYTES", picture = true }]\n'
        'outputs = [{ name = "score", datatype = "FP32", shape = [2] }]\n'
    )
    with pytest.raises(CardError, match=sentence):
        read_card(folder_with(tmp_path, card + picture))


def test_a_folder_without_a_card_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"`edgeburst-model new FOLDER --from FILE` writes one"):
        read_card(tmp_path)


def test_a_mark_of_an_editor_is_skipped_and_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "﻿" + TENSORS)
    assert read_card(folder).file == "model.onnx"
    (folder / "model.toml").write_bytes(TENSORS.encode() + b'summary = "\xe4"')
    with pytest.raises(CardError, match=r"model\.toml:5: the file is not UTF-8"):
        read_card(folder)


def test_a_file_is_checked_against_its_hash(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"network").hexdigest()
    folder = folder_with(tmp_path, TENSORS + f'sha256 = "{digest}"\n', model_DOT_onnx=b"network")
    read_card(folder).check_files()

    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(CardError, match=rf"file 'model.onnx' has SHA-256 [0-9a-f]{{64}}, not {digest}: fetch it again"):
        read_card(folder).check_files()
    (folder / "model.onnx").unlink()
    with pytest.raises(CardError, match=r"file 'model.onnx' is not there or cannot be read"):
        read_card(folder).check_files()


def test_the_identity_is_that_of_card_and_files_wherever_they_are(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"network").hexdigest()
    declared = folder_with(tmp_path, TENSORS + f'sha256 = "{digest}"\n', model_DOT_onnx=b"network")
    at_server = read_card(declared).identity()
    (declared / "model.onnx").unlink()
    at_client = read_card(declared).identity()

    assert at_server is not None
    assert at_server == at_client
    lines = sorted(
        [
            f"{digest}  model.onnx\n",
            hashlib.sha256((declared / "model.toml").read_bytes()).hexdigest() + "  model.toml\n",
        ],
        key=lambda line: line.split()[1],
    )
    assert at_server == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_without_file_and_hash_there_is_no_identity_and_any_change_makes_another(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, TENSORS)
    assert read_card(folder).identity() is None
    (folder / "model.onnx").write_bytes(b"network")
    first = read_card(folder).identity()
    (folder / "model.onnx").write_bytes(b"networks")
    second = read_card(folder).identity()
    folder_with(tmp_path, TENSORS + "# a comment\n")
    assert len({first, second, read_card(folder).identity()}) == 3


def test_weights_that_a_host_brings_are_part_of_the_identity(tmp_path: Path) -> None:
    lines = TENSORS.replace('format = "onnx"', 'format = "state-dict"\narchitecture = "torchvision:resnet18"')
    own = hashlib.sha256(b"network").hexdigest()
    with_file = read_card(folder_with(tmp_path / "with", lines, model_DOT_onnx=b"network"))
    assert with_file.identity() == with_file.identity(own)
    assert len({with_file.identity(), with_file.identity("0" * 64), with_file.identity("random")}) == 3
    bare = read_card(folder_with(tmp_path / "bare", lines.replace('file = "model.onnx"\n', "")))
    assert bare.identity() is None
    assert len({bare.identity(own), bare.identity("0" * 64), bare.identity("random"), None}) == 4


def test_labels_may_be_a_file_which_belongs_to_the_model(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, TENSORS + 'labels = "labels.txt"\n', labels_DOT_txt=b"cat\ndog\n\n")
    card = read_card(folder)
    assert card.labels == ("cat", "dog")
    assert card.files() == ("model.onnx", "labels.txt")


@pytest.mark.parametrize("name", names())
def test_shipped_cards_describe_their_pictures(name: str) -> None:
    card = shipped(name)
    assert card.name == name
    assert card.preprocess is not None
    assert (card.identity() is None) == (not card.file)
    card.check_files()


def test_a_folder_of_folders_holds_its_models_by_name(tmp_path: Path) -> None:
    folder_with(tmp_path, TENSORS)
    assert [card.name for card in cards_in(tmp_path)] == ["mine"]
    assert card_of(str(tmp_path / "mine")).name == "mine"
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "model.toml").write_text(TENSORS + 'name = "mine"\n')
    with pytest.raises(ModelError, match="are both named mine: rename one"):
        cards_in(tmp_path)
    with pytest.raises(ModelError, match="holds no model"):
        cards_in(twin)
    with pytest.raises(ModelError, match="there is no folder"):
        cards_in(tmp_path / "none")


X = TensorSpec("x", "FP32", (3, -1))
Y = TensorSpec("y", "INT64")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([("x", "FP32", (2, 3, 5)), ("y", "INT64", (2,))], None),
        ([("x", "FP32", (2, 3, 5))], "input 'y' is missing; model m takes 'x', 'y'"),
        (
            [("x", "FP32", (2, 3, 5)), ("y", "INT64", (2,)), ("z", "INT64", (2,))],
            "input 'z' is unknown; model m takes 'x', 'y'",
        ),
        (
            [("x", "FP32", (2, 3, 5)), ("y", "INT64", (2,)), ("y", "INT64", (2,))],
            "an input is there twice; model m takes 'x', 'y'",
        ),
        ([("x", "FP64", (2, 3, 5)), ("y", "INT64", (2,))], "input 'x' must be FP32, not FP64"),
        (
            [("x", "FP32", (2, 4, 5)), ("y", "INT64", (2,))],
            "input 'x' must have the shape [n, 3, any] for n items, not [2, 4, 5]",
        ),
        (
            [("x", "FP32", (2, 3, 5)), ("y", "INT64", (3,))],
            "inputs 'x' and 'y' have 2 and 3 items; send the same number of items in all inputs",
        ),
        ([("x", "FP32", (0, 3, 5)), ("y", "INT64", (0,))], "input 'x' has no items; send at least one"),
        (
            [("x", "FP32", (5, 3, 5)), ("y", "INT64", (5,))],
            "the request has 5 items, but model m takes at most 4; send fewer at once",
        ),
    ],
)
def test_a_request_is_checked_against_the_inputs(
    given: list[tuple[str, str, tuple[int, ...]]], problem: str | None
) -> None:
    tensors = [TensorSpec(name, datatype, shape) for name, datatype, shape in given]
    assert input_problem("m", (X, Y), tensors, max_items=4) == problem
