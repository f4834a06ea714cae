"""What replays and profiles send to any model: drawn by its inputs, or read from arrays, or a sentence why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.card import TensorSpec
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.inputs import chosen_payloads, drawn_payloads
from scheduler.measuring.payloads import Payload, batch_of
from scheduler.wire import DATATYPES, Tensor

X, Y = TensorSpec("x", "FP32", (3, -1)), TensorSpec("y", "INT64")
PICTURE = TensorSpec("image", "BYTES", picture=True)


def chosen(inputs: tuple[TensorSpec, ...], *words: object) -> tuple[Payload, ...]:
    return chosen_payloads([str(word) for word in words], inputs, model="net", seed=3, length=5)


def refused(inputs: tuple[TensorSpec, ...], *words: object) -> str:
    with pytest.raises(MeasuringError) as caught:
        chosen(inputs, *words)
    return str(caught.value)


class TestDrawn:
    @given(st.sampled_from([*DATATYPES, "BYTES"]), st.lists(st.integers(-1, 4).filter(bool), max_size=3))
    def test_any_input_gets_one_item_of_its_datatype_and_shape(self, datatype: str, shape: list[int]) -> None:
        spec = TensorSpec("x", datatype, tuple(shape))
        for payload in drawn_payloads((spec,), model="net", seed=1, length=5):
            [tensor] = payload.tensors
            assert (tensor.name, tensor.datatype) == ("x", datatype)
            assert tensor.shape == (1, *(5 if axis == -1 else axis for axis in shape))
            assert spec.fits(tensor.shape)
            assert tensor.to_numpy().shape == tensor.shape

    def test_the_seed_decides(self) -> None:
        assert chosen((X, Y)) == chosen((X, Y), "random")
        other = chosen_payloads([], (X, Y), model="net", seed=4, length=5)
        assert other != chosen((X, Y))

    def test_a_model_of_pictures_gets_pictures(self) -> None:
        payloads = chosen((PICTURE,), "random")
        assert payloads[0].name == "synthetic-0.png"
        [tensor] = payloads[0].inputs("image")
        assert tensor.elements()[0].startswith(b"\x89PNG")

    def test_what_cannot_be_drawn_is_named(self) -> None:
        assert "'x' of model 'net' is BF16, which cannot be drawn" in refused((TensorSpec("x", "BF16"),))


class TestArrays:
    def test_each_row_is_a_payload(self, tmp_path: Path) -> None:
        x, y = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([7, -8])
        np.savez(tmp_path / "both.npz", y=y, x=x)
        payloads = chosen((X, Y), tmp_path / "both.npz")
        assert [payload.name for payload in payloads] == ["both.npz:0", "both.npz:1"]
        for row, payload in enumerate(payloads):
            assert [tensor.name for tensor in payload.tensors] == ["x", "y"]
            np.testing.assert_array_equal(payload.tensors[0].to_numpy(), x[row : row + 1])
            np.testing.assert_array_equal(payload.tensors[1].to_numpy(), y[row : row + 1])

    def test_a_single_item_needs_no_batch_axis_and_numbers_are_converted(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.ones((3, 4)))
        [payload] = chosen((X,), tmp_path / "x.npy")
        assert (payload.tensors[0].datatype, payload.tensors[0].shape) == ("FP32", (1, 3, 4))
        np.save(tmp_path / "y.npy", np.array(5))
        [payload] = chosen((Y,), tmp_path / "y.npy")
        assert payload.tensors[0].to_numpy().tolist() == [5]

    def test_texts_are_bytes(self, tmp_path: Path) -> None:
        np.save(tmp_path / "t.npy", np.array(["häuser", "x"]))
        payloads = chosen((TensorSpec("t", "BYTES"),), tmp_path / "t.npy")
        assert [payload.tensors[0].elements() for payload in payloads] == [["häuser".encode()], [b"x"]]

    def test_several_files_follow_one_another(self, tmp_path: Path) -> None:
        for name, count in (("a", 2), ("b", 3)):
            np.save(tmp_path / f"{name}.npy", np.zeros(count, dtype=np.int64))
        payloads = chosen((Y,), tmp_path / "a.npy", tmp_path / "b.npy")
        assert [payload.name for payload in payloads] == ["a.npy:0", "a.npy:1", "b.npy:0", "b.npy:1", "b.npy:2"]

    def test_what_does_not_fit_is_a_sentence(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((2, 4, 4), dtype=np.float32))
        np.save(tmp_path / "text.npy", np.array(["a"]))
        np.save(tmp_path / "half.npy", np.array([0.5]))
        np.save(tmp_path / "none.npy", np.zeros((0, 3, 2), dtype=np.float32))
        np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.savez(tmp_path / "odd.npz", x=np.zeros((2, 3, 1), dtype=np.float32), y=np.zeros(3, dtype=np.int64))
        (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
        (tmp_path / "empty.npy").write_bytes(b"")
        assert "shape [n, 3, any], but" in refused((X,), tmp_path / "x.npy")
        assert "save them by name in one .npz" in refused((X, Y), tmp_path / "x.npy")
        assert "'y' is INT64, but" in refused((Y,), tmp_path / "text.npy")
        assert "'y' is INT64, but" in refused((Y,), tmp_path / "half.npy")
        assert "'t' is BYTES, but" in refused((TensorSpec("t", "BYTES"),), tmp_path / "half.npy")
        assert "shape [n, 3, any]" in refused((X,), tmp_path / "none.npy")
        assert "unlike numbers of items: x 2, y 3" in refused((X, Y), tmp_path / "odd.npz")
        assert "has the arrays x, y, but model 'net' takes x (FP32)" in refused((X,), tmp_path / "odd.npz")
        for name in ("object.npy", "broken.npz", "empty.npy", "gone.npy"):
            assert f"cannot read the arrays in {tmp_path / name}" in refused((X,), tmp_path / name)


class TestWords:
    def test_pictures_are_for_models_of_pictures(self, tmp_path: Path) -> None:
        picture = tmp_path / "x.png"
        picture.write_bytes(b"png")
        assert [payload.data for payload in chosen((PICTURE,), picture)] == [b"png"]
        assert "takes x (FP32), y (INT64), not one encoded picture" in refused((X, Y), picture)

    def test_kinds_are_not_mixed(self, tmp_path: Path) -> None:
        assert "the word random or files, not both" in refused((X,), "random", tmp_path / "x.npy")
        assert "arrays (.npy, .npz) or pictures, not both" in refused((X,), tmp_path / "x.npy", tmp_path / "x.png")


def test_a_batch_takes_the_payloads_in_turn() -> None:
    payloads = [(Tensor.from_numpy("y", np.array([value])),) for value in (1, 2, 3)]
    [joined] = batch_of(payloads, 5)
    assert joined.to_numpy().tolist() == [1, 2, 3, 1, 2]


def test_payloads_of_unlike_shapes_cannot_share_a_batch() -> None:
    payloads = [(Tensor.from_numpy("x", np.zeros((1, length))),) for length in (2, 3)]
    with pytest.raises(MeasuringError, match="send payloads of equal shapes"):
        batch_of(payloads, 2)
