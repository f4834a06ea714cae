"""The catalogue: what the daemon may say of a model without loading it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.catalogue import UnknownModel, names, shipped


@pytest.mark.parametrize("name", names())
def test_every_model_has_one_label_per_probability_and_takes_one_encoded_picture_per_item(name: str) -> None:
    model = shipped(name)

    assert model.name == name
    assert model.outputs[0].name == "probabilities"
    assert model.outputs[0].datatype == "FP32"
    assert model.outputs[0].shape == (len(set(model.labels)),)
    [taken] = model.inputs
    assert (taken.name, taken.datatype, taken.shape, taken.picture) == ("image", "BYTES", (), True)


def test_the_three_models_are_there_and_digits_is_the_default() -> None:
    assert names() == ("digits", "mobilenet_v3_small", "resnet50")
    assert shipped("digits").labels == tuple("0123456789")
    assert [len(shipped(name).labels) for name in names()] == [10, 1000, 1000]


def test_a_typo_is_answered_with_the_nearest_model() -> None:
    with pytest.raises(UnknownModel, match=r"^there is no model 'digit': did you mean 'digits'\?$"):
        shipped("digit")


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(UnknownModel, match="choose one of digits, mobilenet_v3_small, resnet50"):
        shipped("zzz")


def test_catalogue_profiles_and_emulation_load_neither_torch_nor_opencv() -> None:
    program = (
        "import sys, models.catalogue; assert 'numpy' not in sys.modules;"
        "import models.profile, models.emulation; assert not {'torch', 'cv2', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
