"""A served model as Triton's model configuration: the JSON of its extension "model_configuration".

Reference: https://github.com/triton-inference-server/common, protobuf/model_config.proto, and server,
docs/protocol. Triton writes 64-bit numbers as numbers here, not as texts, and every key, also where it has no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.card import TensorSpec
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.domain.plans import Limits, Plan

PLATFORM = "edgeburst"
LABELS_FILE = "labels.txt"
"""Says that an output has labels. No call returns the file itself: ask for `classification`."""

_DATATYPES: Mapping[str, str] = {"BYTES": "TYPE_STRING"}
"""By datatype of the protocol, where the name in the configuration is not `TYPE_` and that datatype."""


def model_config(
    card: ModelCard,
    *,
    preferred_batch_sizes: Iterable[int] = (),
    max_queue_delay_s: float | None = None,
    max_queue_size: int = 0,
) -> dict[str, Any]:
    """Returns a model's configuration as Triton would show it.

    Args:
        card: the model's metadata and limits.
        preferred_batch_sizes: items of the batches that the present plan aims at; none means no preference.
        max_queue_delay_s: longest wait of a request for others; None: as long as the SLO of the default class allows.
        max_queue_size: how many requests may wait; 0: any number, as in Triton.
    """
    default = card.classes[card.default_class]
    delay_s = default.slo_s if max_queue_delay_s is None else max_queue_delay_s
    sizes = sorted({size for size in preferred_batch_sizes if 0 < size <= card.max_items})
    return {
        "name": card.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": card.max_items,
        "input": [_input(spec) for spec in card.inputs],
        "output": [_output(spec, labelled=index == 0 and bool(card.labels)) for index, spec in enumerate(card.outputs)],
        "batch_input": [],
        "batch_output": [],
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": False},
            "output_pinned_memory": {"enable": False},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
        "dynamic_batching": {
            "preferred_batch_size": sizes,
            "max_queue_delay_microseconds": _microseconds(delay_s),
            "preserve_ordering": False,
            "priority_levels": card.priority_levels,
            "default_priority_level": card.default_priority,
            "default_queue_policy": {
                "timeout_action": "DELAY" if default.serve_late else "REJECT",
                "default_timeout_microseconds": _microseconds(default.slo_s),
                "allow_timeout_override": True,
                "max_queue_size": max_queue_size,
            },
            "priority_queue_policy": {},
        },
        "instance_group": [],
        "default_model_filename": "",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {
            "classes": {"string_value": ",".join(card.classes)},
            "default_class": {"string_value": card.default_class},
        },
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }


def planned_config(card: ModelCard, plan: Plan | None, limits: Limits, *, max_queue_size: int) -> dict[str, Any]:
    """Returns a model's configuration with the batches of the present plan and the limits of an operator.

    Args:
        card: the model's metadata and limits.
        plan: the plan that the engine follows; None: there is none yet.
        limits: what an operator has set for the model.
        max_queue_size: how many requests may wait.
    """
    groups = () if plan is None else [group for group in plan.groups if group.model == card.name]
    edge = [_least(group.edge_batch_cap, limits.edge_batch_cap) for group in groups]
    function = [_least(buffer.target_batch, limits.function_batch_cap) for group in groups for buffer in group.buffers]
    return model_config(
        card,
        preferred_batch_sizes=(*edge, *function),
        max_queue_delay_s=limits.window_s,
        max_queue_size=max_queue_size,
    )


def _least(planned: int, limit: int | None) -> int:
    return planned if limit is None else min(planned, limit)


def _input(spec: TensorSpec) -> dict[str, Any]:
    return {
        **_tensor(spec),
        "format": "FORMAT_NONE",
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": False,
        "is_non_linear_format_io": False,
    }


def _output(spec: TensorSpec, *, labelled: bool) -> dict[str, Any]:
    file = LABELS_FILE if labelled else ""
    return {**_tensor(spec), "label_filename": file, "is_shape_tensor": False, "is_non_linear_format_io": False}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    data_type = _DATATYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
    return {"name": spec.name, "data_type": data_type, "dims": list(spec.shape)}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
