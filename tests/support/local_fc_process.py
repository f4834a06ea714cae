"""A real local Function Compute endpoint in a process of its own, and the provider's SDK towards it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from alibabacloud_fc20230330 import models as m
from alibabacloud_fc20230330.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.runtime import RuntimeOptions

ROOT = Path(__file__).parents[2]
ECHO = Path(__file__).parent / "echo_function.py"
LIMIT_S = 60
KEY, SECRET = "demo", "demo-secret"
BASE_CONFIG = f"""
[access_keys]
{KEY} = "{SECRET}"

[images.echo]
command = ["python", "-S", "{ECHO}"]

[images.other]
command = ["python", "-S", "{ECHO}"]
env = {{ IMAGE_SAYS = "hello" }}
"""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def clean_environment() -> dict[str, str]:
    """Return the environment without proxies, which the SDK would use even for loopback."""
    return {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}


@dataclass
class LocalFc:
    """A running endpoint."""

    process: subprocess.Popen[str]
    host: str
    port: int
    http: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.http.trust_env = False
        self.http.headers["Connection"] = "close"  # a test leaves none

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def client(self, *, key: str = KEY, secret: str = SECRET) -> Client:
        """Return the SDK's client."""
        config = Config(
            access_key_id=key,
            access_key_secret=secret,
            region_id="cn-hangzhou",
            endpoint=self.address,
            protocol="http",
            connect_timeout=3000,
            read_timeout=60_000,
            max_idle_conns=32,
        )
        return Client(config)

    def create(self, name: str, *, image: str = "echo", container: dict[str, Any] | None = None, **given: Any) -> Any:
        """Create a function that runs the echo program."""
        content = {
            "functionName": name,
            "runtime": "custom-container",
            "handler": "index.handler",
            "cpu": 1,
            "memorySize": 1024,
            "diskSize": 512,
            "customContainerConfig": {"image": image, **(container or {})},
            **given,
        }
        body = m.CreateFunctionInput().from_map(content)
        return self.client().create_function(m.CreateFunctionRequest(body=body)).body

    def invoke(
        self,
        name: str,
        body: bytes | dict[str, Any] = b"hello",
        *,
        qualifier: str | None = None,
        kind: str | None = None,
    ) -> Any:
        """Invoke through the SDK's synchronous client."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client().invoke_function_with_options(
            name,
            m.InvokeFunctionRequest(body=data, qualifier=qualifier),
            m.InvokeFunctionHeaders(x_fc_invocation_type=kind),
            RuntimeOptions(),
        )

    def remove(self, name: str) -> None:
        """Delete a function in the order that the provider wants: first what keeps its instances."""
        client = self.client()
        for kept in client.list_provision_configs(
            m.ListProvisionConfigsRequest(function_name=name)
        ).body.provision_configs:
            qualifier = kept.function_arn.rpartition("/")[2]
            client.delete_provision_config(name, m.DeleteProvisionConfigRequest(qualifier=qualifier))
        for scaled in client.list_scaling_configs(m.ListScalingConfigsRequest(function_name=name)).body.scaling_configs:
            qualifier = scaled.function_arn.rpartition("/")[2]
            client.delete_scaling_config(name, m.DeleteScalingConfigRequest(qualifier=qualifier))
        eventually(lambda: self.is_deleted(name))

    def is_deleted(self, name: str) -> bool:
        """Try to delete a function; return whether it could be done, for its instances end in their own time."""
        try:
            self.client().delete_function(name)
        except ClientException as error:
            if error.code != "ProvisionConfigExist":
                raise
            return False
        return True

    def admin(self, method: str, path: str, content: object = None) -> Any:
        """Ask what needs no signature."""
        answer = self.http.request(method, f"{self.url}/admin/{path}", json=content, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def instances(self, function: str, *statuses: str) -> list[dict[str, Any]]:
        """Return the instances of a function, gone ones too."""
        found = [each for each in self.admin("GET", "instances")["instances"] if each["function"] == function]
        return [each for each in found if not statuses or each["status"] in statuses]

    def usage(self, function: str) -> dict[str, Any]:
        """Return what the meter says of a function."""
        report: dict[str, Any] = self.admin("GET", "meter")["functions"][function]
        return report

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=LIMIT_S)


def launch(folder: Path, config: str, *options: str) -> subprocess.Popen[str]:
    """Start an endpoint with this configuration and return its process."""
    path = folder / "local-fc.toml"
    path.write_text(config, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "serverless_fn.local_fc", "--config", str(path), "--port", "0", *options],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(folder: Path, config: str = BASE_CONFIG, *options: str) -> Iterator[LocalFc]:
    """Start an endpoint, hand it over once it listens, and end it."""
    process = launch(folder, config, *options)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        yield LocalFc(process, ready["host"], ready["port"])
    finally:
        process.terminate()
        try:
            process.wait(timeout=LIMIT_S)
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()


def eventually(truth: Callable[[], object], *, limit_s: float = 20.0) -> Any:
    """Wait for something that a real process will do; return what it then is."""
    end_s = time.monotonic() + limit_s
    while not (found := truth()):
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.02)
    return found


def exists(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
