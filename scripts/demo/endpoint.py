"""Client of the local Function Compute endpoint: the provider's SDK for instances, /admin for the bill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from scripts.demo.configuration import KEY_ID, KEY_SECRET, REGION
from scripts.demo.errors import DemoError
from scripts.demo.settings import FUNCTION

_LIMIT_S = 10.0
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of the function up to some time, from the meter of the endpoint.

    Attributes:
        invocations: number of calls.
        billed_s: seconds with a call in flight, rounded as in the bill.
        provisioned_idle_s: seconds of provisioned instances without a call.
        active: cost of calls and their seconds by price sheet, in the currency of the sheet.
        provisioned_idle: cost of provisioned instances without a call, by price sheet.
    """

    invocations: int
    billed_s: float
    provisioned_idle_s: float
    active: dict[str, float]
    provisioned_idle: dict[str, float]

    def since(self, before: Usage) -> Usage:
        """Returns the usage since `before`."""
        return Usage(
            invocations=self.invocations - before.invocations,
            billed_s=self.billed_s - before.billed_s,
            provisioned_idle_s=self.provisioned_idle_s - before.provisioned_idle_s,
            active=_minus(self.active, before.active),
            provisioned_idle=_minus(self.provisioned_idle, before.provisioned_idle),
        )


def _minus(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


class Endpoint:
    """Local endpoint, as its operator uses it.

    Args:
        address: HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = requests.Session()
        # A proxy of the environment must not be used for loopback.
        self._http.trust_env = False

    def instances(self) -> list[dict[str, Any]]:
        """Returns the instances of the function, ended instances included."""
        found = self._admin("instances")["instances"]
        return [instance for instance in found if instance["function"] == FUNCTION]

    def warm(self) -> int:
        """Returns the number of provisioned instances that are ready."""
        return sum(each["status"] == "Running" and each["resourceType"] == "provisioned" for each in self.instances())

    def usage(self) -> Usage:
        """Returns the usage up to now."""
        account = self._admin("meter")["functions"].get(FUNCTION)
        if account is None:
            return Usage(0, 0.0, 0.0, {}, {})
        priced = {name: money for name, money in account["cost"].items() if money is not None}
        return Usage(
            invocations=account["invocations"],
            billed_s=account["billed_s"],
            provisioned_idle_s=account["provisioned_idle_s"],
            active={name: money["active"] + money["calls"] for name, money in priced.items()},
            provisioned_idle={name: money["provisioned_idle"] for name, money in priced.items()},
        )

    def wait_until_warm(self, target: int, *, limit_s: float, on_progress: Callable[[int, int], None]) -> None:
        """Waits until all provisioned instances are ready.

        Raises:
            DemoError: they are not ready within the limit.
        """
        end_s = time.monotonic() + limit_s
        while (warm := self.warm()) < target:
            on_progress(warm, target)
            if time.monotonic() > end_s:
                raise DemoError(f"only {warm} of {target} function instances started within {limit_s:g} s")
            time.sleep(_POLL_S)
        on_progress(warm, target)

    def let_go(self, *, limit_s: float) -> None:
        """Removes the provisioned instances with the provider's SDK, and waits until all have ended.

        Raises:
            DemoError: an instance has not ended within the limit.
        """
        self.provision(0)
        end_s = time.monotonic() + limit_s
        while any(each["status"] != "Destroyed" for each in self.instances()):
            if time.monotonic() > end_s:
                raise DemoError(f"the function's warm instances were not gone within {limit_s:g} s")
            time.sleep(_POLL_S)

    def provision(self, target: int) -> None:
        """Sets the number of provisioned instances with the provider's SDK; returns before they are ready."""
        # Here and not above: importing the SDK takes a while.
        from alibabacloud_fc20230330 import models
        from alibabacloud_fc20230330.client import Client
        from alibabacloud_tea_openapi.utils_models import Config

        # The import configured its logger to print every request.
        logging.getLogger("darabonba-core").setLevel(logging.WARNING)
        client = Client(
            Config(
                access_key_id=KEY_ID,
                access_key_secret=KEY_SECRET,
                region_id=REGION,
                endpoint=self.address,
                protocol="http",
            )
        )
        wanted = models.PutProvisionConfigInput(default_target=target)
        client.put_provision_config(FUNCTION, models.PutProvisionConfigRequest(body=wanted))

    def _admin(self, path: str) -> dict[str, Any]:
        try:
            answer = self._http.get(f"http://{self.address}/admin/{path}", timeout=_LIMIT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise DemoError(f"the local Function Compute endpoint does not answer: {error}") from error
        content: dict[str, Any] = answer.json()
        return content
