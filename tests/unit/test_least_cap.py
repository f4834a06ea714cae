"""What `check-config` says of a cap that lets no function be called, against what the engine does under it."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.engine_kit import run_until_idle, sent

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config_command import summary
from scheduler.domain.messages import RequestArrived
from scheduler.domain.requests import Request
from scheduler.engine import Engine

FUNCTION = """\
[function]
[[model]]
name = "digits"
[[model.class]]
slo_s = 30.0
[[model.tier]]
name = "1gb"
function = "digits-fn"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""
WARM = '[deploy]\nimage = "i"\nprovisioned = { 1gb = 1 }\n'
TENANT = '[[tenant]]\nname = "lab"\nper_hour = CAP\n'
SPEND = "[spend]\nper_hour = CAP\n"


def configured(tmp_path: Path, text: str, cap: float) -> Config:
    path = tmp_path / "c.toml"
    path.write_text(text.replace("CAP", repr(cap)))
    return load_config(path, {})


def warned(config: Config) -> list[str]:
    return [words for words in summary(config, {})["warnings"] if "no function will be called" in words]


def calls(config: Config) -> int:
    engine = Engine(replace(config.engine_settings(), spend_leased=""))
    request = Request(1, "digits", 0.0, 30.0, items=1, body_bytes=1000, class_name="default", tenant="lab")
    return len(sent(run_until_idle(engine, engine.handle([RequestArrived(request)], 0.0), 0.0, 30.0)))


@pytest.mark.parametrize(
    "text", [SPEND + FUNCTION, SPEND + FUNCTION + WARM, FUNCTION + TENANT], ids=["cold", "warm", "tenant"]
)
def test_the_least_that_is_told_is_what_the_engine_needs(text: str, tmp_path: Path) -> None:
    idle = 0.04572 if "[deploy]" in text else 0.0
    [words] = warned(configured(tmp_path, text, idle + 1e-6))
    assert words.endswith(" for this tenant; raise it") == (text == FUNCTION + TENANT)
    least = float(words.split(" is the least")[0].rsplit(" ", 1)[1])
    for cap, enough in ((idle + 0.9 * (least - idle), False), (idle + 1.1 * (least - idle), True)):
        config = configured(tmp_path, text, cap)
        assert (not warned(config), calls(config)) == (enough, int(enough))
