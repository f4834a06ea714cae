"""The configuration of a model has Triton's JSON, as Triton's own message reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.ingress.model_metadata import ModelCard, TensorSpec
from scheduler.daemon.model_config import model_config, planned_config
from scheduler.domain.plans import BufferPlan, GroupPlan, Limits, Plan, ServiceClass
from scheduler.wire import DATATYPES

READ_BY_TRITON = """
import json, sys
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2
message = json_format.Parse(sys.stdin.read(), model_config_pb2.ModelConfig())
print(json_format.MessageToJson(
    message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
))
"""
"""In a process of its own: Triton's messages register names that other modules register too."""


def card(**changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "name": "faces",
        "inputs": (TensorSpec("image", "BYTES", (), picture=True), TensorSpec("scale", "FP32", (2, 3))),
        "outputs": (TensorSpec("probabilities", "FP32", (10,)), TensorSpec("item_error", "BYTES", ())),
        "labels": ("a", "b"),
        "max_items": 32,
        "priority_levels": 3,
        "default_priority": 2,
        "classes": MappingProxyType(
            {"fast": ServiceClass("fast", slo_s=0.25), "slow": ServiceClass("slow", slo_s=9.0, serve_late=True)}
        ),
        "default_class": "fast",
    }
    return ModelCard(**{**values, **changes})


def test_the_keys_that_clients_read_have_tritons_names_and_words() -> None:
    config = model_config(card(), preferred_batch_sizes=(16, 4, 16, 99, 0), max_queue_size=4096)
    assert (config["name"], config["platform"], config["backend"]) == ("faces", "edgeburst", "edgeburst")
    assert config["max_batch_size"] == 32
    assert [(entry["name"], entry["data_type"], entry["dims"]) for entry in config["input"]] == [
        ("image", "TYPE_STRING", []),
        ("scale", "TYPE_FP32", [2, 3]),
    ]
    assert [(entry["name"], entry["label_filename"]) for entry in config["output"]] == [
        ("probabilities", "labels.txt"),
        ("item_error", ""),
    ]
    batching = config["dynamic_batching"]
    assert batching["preferred_batch_size"] == [4, 16]
    assert batching["max_queue_delay_microseconds"] == 250_000
    assert (batching["priority_levels"], batching["default_priority_level"]) == (3, 2)
    assert batching["default_queue_policy"] == {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": 250_000,
        "allow_timeout_override": True,
        "max_queue_size": 4096,
    }
    assert config["model_transaction_policy"] == {"decoupled": False}


def test_an_operators_window_and_a_class_that_is_served_late_are_shown() -> None:
    batching = model_config(card(default_class="slow"), max_queue_delay_s=0.02)["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 20_000
    assert batching["default_queue_policy"]["timeout_action"] == "DELAY"


def a_plan(model: str) -> Plan:
    buffers = tuple(BufferPlan(("fast",), "1gb", target, {}, {}, 0.99) for target in (3, 12))
    group = GroupPlan(model, ("fast",), 24, {}, 0.99, buffers, 0.0, 1.0, 0.0)
    return Plan(1, 0.0, 10.0, "start", "", (group,))


def test_preferred_batches_are_those_of_the_plan_within_the_operators_limits() -> None:
    def preferred(plan: Plan | None, limits: Limits) -> list[int]:
        config = planned_config(card(), plan, limits, max_queue_size=7)
        sizes: list[int] = config["dynamic_batching"]["preferred_batch_size"]
        return sizes

    assert preferred(a_plan("faces"), Limits()) == [3, 12, 24]
    assert preferred(a_plan("faces"), Limits(edge_batch_cap=8, function_batch_cap=4)) == [3, 4, 8]
    assert preferred(a_plan("dogs"), Limits()) == []
    assert preferred(None, Limits()) == []


def test_without_labels_no_output_names_a_file() -> None:
    assert [entry["label_filename"] for entry in model_config(card(labels=()))["output"]] == ["", ""]


def test_tritons_own_message_reads_every_key_and_gives_it_back() -> None:
    datatypes = tuple(TensorSpec(name, name, (1, -1)) for name in (*DATATYPES, "BYTES"))
    config = model_config(card(inputs=datatypes), preferred_batch_sizes=(8,))
    command = [sys.executable, "-c", READ_BY_TRITON]
    read = subprocess.run(command, input=json.dumps(config), capture_output=True, text=True, timeout=60, check=False)
    assert read.returncode == 0, read.stderr
    assert _numbers(json.loads(read.stdout)).items() >= config.items()


@given(st.lists(st.integers(-5, 200)), st.integers(1, 128))
def test_preferred_batches_are_sorted_distinct_and_possible(sizes: list[int], max_items: int) -> None:
    shown = model_config(card(max_items=max_items), preferred_batch_sizes=sizes)
    preferred = shown["dynamic_batching"]["preferred_batch_size"]
    assert preferred == sorted(set(preferred))
    assert set(preferred) == {size for size in sizes if 1 <= size <= max_items}


def _numbers(value: Any) -> Any:
    """Protobuf writes 64-bit numbers as texts; Triton turns them back."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
