"""What the demo asks of the local Function Compute endpoint: the provider's SDK for instances, /admin for the bill."""

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
    """What the endpoint's meter says of the function up to a moment.

    Attributes:
        invocations: calls.
        billed_s: seconds with a call in flight, as rounded for the bill.
        provisioned_idle_s: seconds that warm instances were kept without a call.
        active: money for calls and their seconds, by price sheet, in the sheet's currency.
        provisioned_idle: money for warm instances without a call, by price sheet.
    """

    invocations: int
    billed_s: float
    provisioned_idle_s: float
    active: dict[str, float]
    provisioned_idle: dict[str, float]

    def since(self, before: Usage) -> Usage:
        """Returns what has been used since `before`."""
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
    """The local endpoint as the demo's operator sees it.

    Attributes:
        address: HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = requests.Session()
        # Proxies of the environment are not for loopback.
        self._http.trust_env = False

    def instances(self) -> list[dict[str, Any]]:
        """Returns the function's instances, those that are gone too."""
        found = self._admin("instances")["instances"]
        return [instance for instance in found if instance["function"] == FUNCTION]

    def warm(self) -> int:
        """Returns how many provisioned instances are ready."""
        return sum(each["status"] == "Running" and each["resourceType"] == "provisioned" for each in self.instances())

    def usage(self) -> Usage:
        """Returns what the meter says."""
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
        """Waits until all provisioned instances are up.

        Raises:
            DemoError: they were not within the limit.
        """
        end_s = time.monotonic() + limit_s
        while (warm := self.warm()) < target:
            on_progress(warm, target)
            if time.monotonic() > end_s:
                raise DemoError(f"only {warm} of {target} function instances started within {limit_s:g} s")
            time.sleep(_POLL_S)
        on_progress(warm, target)

    def let_go(self, *, limit_s: float) -> None:
        """Sets the provisioned instances to none through the provider's SDK, and waits until all are gone.

        Raises:
            DemoError: one was still there after the limit.
        """
        self._provision(0)
        end_s = time.monotonic() + limit_s
        while any(each["status"] != "Destroyed" for each in self.instances()):
            if time.monotonic() > end_s:
                raise DemoError(f"the function's warm instances were not gone within {limit_s:g} s")
            time.sleep(_POLL_S)

    def _provision(self, target: int) -> None:
        # Here and not above: the SDK takes a while to import.
        from alibabacloud_fc20230330 import models
        from alibabacloud_fc20230330.client import Client
        from alibabacloud_tea_openapi.utils_models import Config

        # Importing it has set its logger to print every request.
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
