"""The wall clock of the daemon's host is set while it runs: functions are away meanwhile, and nothing else happens."""

import glob
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import local_fc_process
from support.daemon_process import Running, daemon_process, until
from support.hygiene import python_path
from support.local_fc_process import KEY, SECRET, LocalFc

LIBRARY = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
pytestmark = [
    pytest.mark.xdist_group("serve"),
    pytest.mark.skipif(not LIBRARY, reason="libfaketime is not installed: apt-get install faketime"),
]
CAP = 1.0
CONFIG = """
[daemon]
port = 0
late = "refuse"
state = "{state}"
[engine]
reopen_after_s = 0.3
[function]
endpoint = "{endpoint}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
[spend]
per_hour = {cap}
[[model]]
name = "digits"
[[model.class]]
slo_s = 3.0
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""
ENDPOINT = f"""
[access_keys]
{KEY} = "{SECRET}"
[images.frames]
command = ["{sys.executable}", "-m", "support.frame_function"]
env = {{ PYTHONPATH = "{python_path(Path(__file__).parents[2], Path(__file__).parents[1])}" }}
"""


@pytest.fixture
def fc(tmp_path: Path) -> Iterator[LocalFc]:
    with local_fc_process.running(tmp_path, ENDPOINT) as endpoint:
        endpoint.create("digits", image="frames")
        yield endpoint


def ask(daemon: Running) -> tuple[int, str]:
    request = urllib.request.Request(
        f"{daemon.url}/v1/classify/digits", data=b"a picture", headers={"Content-Type": "image/png"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def is_answered(daemon: Running) -> bool:
    """Asks, not so often that the daemon sees more traffic than one function bears."""
    time.sleep(0.3)
    return ask(daemon)[0] == 200


def test_a_clock_that_is_set_keeps_functions_away_until_it_is_right(tmp_path: Path, fc: LocalFc) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        "TEST_KEY_ID": KEY,
        "TEST_KEY_SECRET": SECRET,
        "LD_PRELOAD": LIBRARY[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    config = tmp_path / "edgeburst.toml"
    config.write_text(CONFIG.format(state=tmp_path / "state", endpoint=fc.address, cap=CAP))
    with daemon_process(config, environ=environ) as daemon:
        until(lambda: is_answered(daemon), "a first answer, after a cold start")
        clock.write_text("-7000")
        until(lambda: not is_answered(daemon), "a refusal")
        # The Date of an answer is in whole seconds.
        assert "this host's clock is 1 h 56 min behind the provider's" in daemon.log
        said = "this host's clock was set back by 1 h 56 min"
        until(lambda: said in daemon.log, said)
        clock.write_text("+0")
        until(lambda: is_answered(daemon), "an answer once the clock is right")
        assert "_bug" not in daemon.log
