"""Functions, versions, aliases and instances in the provider's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from serverless_fn.local_fc.config import Account
from serverless_fn.local_fc.instance import Instance
from serverless_fn.local_fc.registry import Alias, FunctionRecord, Provision, Version


def arn(account: Account, function: str) -> str:
    """Returns a function's resource name."""
    return f"acs:fc:{account.region}:{account.id}:functions/{function}"


def time_text(moment: datetime) -> str:
    """Returns a time in the provider's format."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def function_view(record: FunctionRecord, version: Version, account: Account, now: datetime) -> dict[str, Any]:
    """Returns a function as GetFunction shows it, with the configuration of one of its versions."""
    spec = version.spec
    return {
        "diskSize": spec.disk_mb,
        "instanceConcurrency": spec.concurrency,
        "memorySize": spec.memory_mb,
        "timeout": spec.timeout_s,
        "cpu": spec.vcpu,
        **spec.content,
        "functionArn": arn(account, spec.name),
        "functionId": record.function_id,
        "createdTime": time_text(record.created),
        "lastModifiedTime": time_text(record.modified),
        "codeSize": 0,
        "codeChecksum": checksum(spec.image),
        **_state(record, now),
    }


def checksum(image: str) -> str:
    """Returns a substitute for the checksum of an image, since there is no real image."""
    return str(int(sha256(image.encode()).hexdigest()[:16], 16))


def _state(record: FunctionRecord, now: datetime) -> dict[str, str]:
    busy = now < record.busy_until
    if busy:
        return {"state": "Active" if record.updated else "Pending", "lastUpdateStatus": "InProgress"}
    view = {"state": "Failed" if record.missing_image else "Active", "lastUpdateStatus": "Successful"}
    if record.missing_image:
        reason = f"image {record.missing_image!r} is not in this endpoint's config"
        view |= {"stateReason": reason, "stateReasonCode": "ImageNotFound", "lastUpdateStatus": "Failed"}
    if record.update_problem:
        view |= {
            "lastUpdateStatus": "Failed",
            "lastUpdateStatusReason": record.update_problem,
            "lastUpdateStatusReasonCode": "ImageNotFound",
        }
    return view


def version_view(version: Version) -> dict[str, Any]:
    """Returns a published version."""
    return {
        "versionId": version.version_id,
        "description": version.description,
        "createdTime": time_text(version.created),
        "lastModifiedTime": time_text(version.created),
    }


def alias_view(alias: Alias) -> dict[str, Any]:
    """Returns an alias."""
    return {
        "aliasName": alias.name,
        "versionId": alias.version_id,
        "additionalVersionWeight": dict(alias.weights),
        "description": alias.description,
        "createdTime": time_text(alias.created),
        "lastModifiedTime": time_text(alias.modified),
    }


def provision_view(provision: Provision | None, *, arn: str, current: int, problem: str) -> dict[str, Any]:
    """Returns a provision config with its progress."""
    content: Mapping[str, Any] = provision.content if provision else {}
    target = provision.target if provision else 0
    view = {"alwaysAllocateCPU": True, "alwaysAllocateGPU": True, "scheduledActions": [], "targetTrackingPolicies": []}
    counts = {"target": target, "defaultTarget": target, "current": current, "currentError": problem}
    return {**view, **content, **counts, "functionArn": arn}


def scaling_view(provision: Provision | None, *, arn: str, current: int, problem: str) -> dict[str, Any]:
    """Returns a scaling config with its progress."""
    content: Mapping[str, Any] = provision.content if provision else {}
    target = provision.target if provision else 0
    view = {"enableOnDemandScaling": True, "scheduledPolicies": [], "horizontalScalingPolicies": []}
    counts = {"minInstances": target, "targetInstances": target, "currentInstances": current, "currentError": problem}
    return {**view, **content, **counts, "functionArn": arn}


def concurrency_view(reserved: int | None, *, arn: str) -> dict[str, Any]:
    """Returns the reserved concurrency of a function, if there is one."""
    return {"functionArn": arn} if reserved is None else {"functionArn": arn, "reservedConcurrency": reserved}


def instance_view(instance: Instance) -> dict[str, Any]:
    """Returns an instance as ListInstances shows it."""
    view = {
        "instanceId": instance.id,
        "versionId": instance.version.version_id,
        "qualifier": instance.qualifier,
        "status": instance.status.value,
        "createdTimeMs": _milliseconds(instance.created),
        "resourceType": "provisioned" if instance.provisioned else "onDemand",
    }
    return view if instance.destroyed is None else {**view, "destroyedTimeMs": _milliseconds(instance.destroyed)}


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
