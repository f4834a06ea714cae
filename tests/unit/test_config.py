"""The configuration: what it says is what the engine gets, and every mistake is one sentence that points to it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.profile import load_profile
from models.toml_lines import line_index, line_of
from scheduler.cli import main
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.credentials import read_access_key, secret_references
from scheduler.daemon.config.sections import SECTIONS, EngineSection, GrpcSection
from scheduler.daemon.config.source import TOML
from scheduler.daemon.config_command import summary
from scheduler.daemon.ledgers import borrower_of, leased_settings
from scheduler.dispatch.spend_cap import LENDER, STATE, OverCap
from scheduler.domain.errors import ConfigError
from scheduler.domain.plans import EdgeSettings, EngineSettings
from scheduler.domain.tenants import TenantSettings
from scheduler.fc_client import AccessKey

EXAMPLE = Path(__file__).parents[2] / "scripts" / "edgeburst.example.toml"
SECRET = "Zq7hunter2Secret"

BOXES = '[{ name = "boxes", datatype = "FP32", shape = [4], ragged = true }]'
BOXES_AND_ROWS = BOXES[:-1] + ', { name = "boxes_rows", datatype = "INT64" }]'
EDGE_MODEL = '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
FUNCTION_MODEL = """\
[function]
[[model]]
name = "digits"
[[model.tier]]
name = "1gb"
function = "digits-fn"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    path = tmp_path / "edgeburst.toml"
    path.write_text(text)
    return load_config(path, environ or {})


def refusal(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """The sentence of the refusal, with the folder taken out."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    sentence = str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in sentence
    return sentence


class TestWhatItMeans:
    def test_the_smallest_file_gives_the_engine_its_defaults(self, tmp_path: Path) -> None:
        settings = load(tmp_path, EDGE_MODEL).engine_settings()
        assert settings == EngineSettings(models=settings.models, edges=(EdgeSettings("main", None),))
        [model] = settings.models
        assert [(known.name, known.slo_s, known.percentile) for known in model.classes] == [("default", 1.0, 0.99)]
        assert model.tiers == ()

    def test_profiles_become_latency_models(self, tmp_path: Path) -> None:
        latency = load(tmp_path, EDGE_MODEL).engine_settings().models[0].edge_latency
        profile = load_profile("orin-resnet50")
        assert latency is not None
        fitted = (profile.alpha_s, profile.beta_s, profile.max_batch)
        assert (latency.alpha_s, latency.beta_s, latency.max_batch) == fitted

    def test_measured_rows_reach_the_latency_model(self, tmp_path: Path) -> None:
        content = profile_json(
            rows=[{"batch": b, "p50_s": 0.1 * b, "p95_s": 0.2 * b, "items_per_s": 10.0, "samples": 5} for b in (1, 4)]
        )
        (tmp_path / "mine.json").write_text(json.dumps(content))
        config = load(tmp_path, EDGE_MODEL.replace("orin-resnet50", "mine.json"))
        latency = config.engine_settings().models[0].edge_latency
        assert latency is not None
        assert latency.rows == ((1, 0.1), (4, 0.4))

    def test_price_sheet_and_hardware_become_the_tiers_price(self, tmp_path: Path) -> None:
        [tier] = load(tmp_path, FUNCTION_MODEL).engine_settings().models[0].tiers
        assert (tier.name, tier.function_name, tier.qualifier) == ("1gb", "digits-fn", "LATEST")
        # 0.2156 s at 1 GB: 0.216 s billed at 1.27e-5 CNY a GB·s, and 9e-7 a call.
        assert tier.price.cost(0.2156) == pytest.approx(0.216 * 1.27e-5 + 9e-7)
        assert tier.price.sheet == "cny-gbs-2023"

    @pytest.mark.parametrize(
        ("daemon", "own", "serves_late"),
        [("refuse", None, False), ("serve", None, True), ("serve", "refuse", False), ("refuse", "serve", True)],
    )
    def test_a_class_overrides_what_the_daemon_does_with_late_requests(
        self, tmp_path: Path, daemon: str, own: str | None, serves_late: bool
    ) -> None:
        late = f'late = "{own}"\n' if own else ""
        config = load(tmp_path, f'[daemon]\nlate = "{daemon}"\n{EDGE_MODEL}[[model.class]]\n{late}')
        assert config.engine_settings().models[0].classes[0].serve_late is serves_late

    def test_without_classes_the_default_one_follows_the_daemon(self, tmp_path: Path) -> None:
        config = load(tmp_path, f'[daemon]\nlate = "serve"\n{EDGE_MODEL}')
        assert config.engine_settings().models[0].classes[0].serve_late

    def test_it_is_frozen(self, tmp_path: Path) -> None:
        config = load(tmp_path, EDGE_MODEL)
        for frozen in (config, config.daemon, config.models[0]):
            with pytest.raises(ValueError, match="frozen"):
                frozen.name = "other"  # type: ignore[union-attr]

    def test_the_engine_section_is_engine_settings_field_by_field(self) -> None:
        elsewhere = {"models", "explain_ring", "spend_per_hour", "spend_per_day", "over_cap", "spend_leased", "tenants"}
        elsewhere |= {"max_timeout_s", "edges"}
        defaults = {field.name: field.default for field in fields(EngineSettings) if field.name not in elsewhere}
        assert (defaults.pop("changepoint_package"), defaults["changepoints"]) == (False, True)
        defaults["changepoints"] = "native"  # one key for both
        assert {name: field.default for name, field in EngineSection.model_fields.items()} == defaults

    def test_money_is_leased_where_there_is_a_state_folder_which_is_relative_to_the_file(self, tmp_path: Path) -> None:
        config = load(tmp_path, f'[daemon]\nstate = "kept"\n{EDGE_MODEL}')
        assert config.engine_settings().spend_leased == STATE
        assert config.state_folder() == tmp_path / "kept"
        without = load(tmp_path, EDGE_MODEL)
        assert not without.engine_settings().spend_leased
        assert without.state_folder() is None

    def test_money_is_leased_from_another_daemon_even_where_there_is_a_state_folder(self, tmp_path: Path) -> None:
        text = f'[daemon]\nstate = "kept"\n[spend]\nfrom = "http://127.0.0.1:8601"\n{FUNCTION_MODEL}'
        config = load(tmp_path, text)
        assert config.engine_settings().spend_leased == LENDER
        assert leased_settings(config, None, borrower_of(config, {})).spend_leased == LENDER

    def test_spend_caps_reach_the_engine_and_the_environment_overrides_them(self, tmp_path: Path) -> None:
        text = '[spend]\nper_hour = 0.5\nper_day = 4\nover_cap = "serve-late"\n' + FUNCTION_MODEL
        environ = {"EDGEBURST_SPEND__PER_DAY": "2.5"}
        settings = load(tmp_path, text, environ).engine_settings()
        assert (settings.spend_per_hour, settings.spend_per_day, settings.over_cap) == (0.5, 2.5, "serve-late")

    def test_tenants_reach_the_engine(self, tmp_path: Path) -> None:
        text = EDGE_MODEL + '[[tenant]]\nname = "lab"\nshare = 3\nper_hour = 0.5\n[[tenant]]\nname = "shop"\n'
        with pytest.raises(ConfigError, match="edgeburst.toml:7: `share` in .*tenant.* must be above 0, not 0"):
            load(tmp_path, text.replace("share = 3", "share = 0"))
        tenants = load(tmp_path, text.replace("share = 3", "share = 3.0")).engine_settings().tenants
        assert tenants == (TenantSettings("lab", 3.0, per_hour=0.5), TenantSettings("shop"))
        assert load(tmp_path, EDGE_MODEL).engine_settings().tenants == ()

    def test_what_may_be_written_for_over_cap_is_what_the_engine_knows(self, tmp_path: Path) -> None:
        for word in OverCap:
            text = f'[spend]\nover_cap = "{word.value}"\n' + FUNCTION_MODEL
            assert load(tmp_path, text).engine_settings().over_cap == word.value
        sentence = refusal(tmp_path, '[spend]\nover_cap = "stop"\n' + FUNCTION_MODEL)
        assert sentence.startswith("edgeburst.toml:2: `over_cap` in [spend] must be 'serve-late', ")

    def test_the_ring_of_decisions_reaches_the_engine_and_its_file_lies_beside_the_configuration(
        self, tmp_path: Path
    ) -> None:
        config = load(tmp_path, '[explain]\nring = 10\nfile = "why.jsonl"\n' + EDGE_MODEL)
        assert config.engine_settings().explain_ring == 10
        assert config.explain_file() == tmp_path / "why.jsonl"
        assert load(tmp_path, EDGE_MODEL).explain_file() is None

    def test_a_file_of_decisions_that_cannot_be_written_is_refused_at_once(self, tmp_path: Path) -> None:
        sentence = refusal(tmp_path, '[explain]\nfile = "logs/why.jsonl"\n' + EDGE_MODEL)
        assert sentence.startswith("edgeburst.toml:2: `file` in [explain] cannot be written: there is no folder logs;")
        (tmp_path / "logs").mkdir()
        sentence = refusal(tmp_path, '[explain]\nfile = "logs"\n' + EDGE_MODEL)
        assert "logs is a folder" in sentence

    def test_every_key_of_every_table_is_documented(self) -> None:
        for section in SECTIONS.values():
            assert section.__doc__
            for name, field in section.model_fields.items():
                assert field.description, f"{section.__name__}.{name}"
                assert field.description.endswith("."), f"{section.__name__}.{name}"


class TestExample:
    def test_it_loads(self) -> None:
        [model] = load_config(EXAMPLE, {}).engine_settings().models
        assert model.edge_latency is not None
        assert model.tiers

    def test_it_shows_every_key(self) -> None:
        text = EXAMPLE.read_text()
        for keys, section in SECTIONS.items():
            for name, field in section.model_fields.items():
                if keys == () or keys[-1] == "inputs" or keys[-1] == "outputs" or (field.alias in ("class", "tier")):
                    continue
                assert re.search(rf"^(# )?{field.alias or name} = ", text, re.MULTILINE), f"{keys}: {name}"

    def test_what_is_commented_out_is_valid_and_the_default(self, tmp_path: Path) -> None:
        text = EXAMPLE.read_text()
        shown = re.sub(r"^# (\w+ = |\[)", r"\1", text, flags=re.MULTILINE)
        before, after = load_config(EXAMPLE, {}), load(tmp_path, shown)
        assert (after.daemon, after.edges, after.function) == (before.daemon, before.edges, before.function)
        assert (before.grpc, after.grpc) == (None, GrpcSection())
        assert after.spend.over_cap == before.spend.over_cap
        assert after.explain == before.explain
        without = {"uplink_bytes_per_s"}
        assert after.engine.model_dump(exclude=without) == before.engine.model_dump(exclude=without)
        assert after.engine.uplink_bytes_per_s == 1_000_000
        assert after.models[0].inputs[0].picture


class TestChangepoints:
    @pytest.mark.parametrize(
        ("value", "found", "package"),
        [
            ("true", True, False),
            ("false", False, False),
            ('"native"', True, False),
            ('"off"', False, False),
            ('"package"', True, True),
        ],
    )
    def test_words_and_the_old_true_and_false_choose_the_detector(
        self, tmp_path: Path, value: str, found: bool, package: bool
    ) -> None:
        made = load(tmp_path, f"[engine]\nchangepoints = {value}\n" + EDGE_MODEL).engine_settings()
        assert (made.changepoints, made.changepoint_package) == (found, package)

    def test_the_package_is_asked_for_only_where_it_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "bayesian_changepoint_detection.online_changepoint_detection", None)
        with pytest.raises(
            ConfigError, match=r"edgeburst\.toml:2: changepoints = \"package\" needs the Python package"
        ):
            load(tmp_path, '[engine]\nchangepoints = "package"\n' + EDGE_MODEL)
        load(tmp_path, EDGE_MODEL)


class TestGrpc:
    @pytest.mark.parametrize("missing", ["grpc", "google"])
    def test_its_packages_are_asked_for_only_where_it_is_configured(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        found = importlib.util.find_spec

        def find_spec(name: str, package: str | None = None) -> object:
            if name == f"{missing}.protobuf":
                raise ModuleNotFoundError(name)
            return None if name == missing else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        with pytest.raises(
            ConfigError,
            match=r"edgeburst\.toml:1: \[grpc\] needs the packages grpcio and protobuf; run: pip install"
            r" 'edgeburst\[grpc\]', or remove the table",
        ):
            load(tmp_path, "[grpc]\nport = 0\n" + EDGE_MODEL)
        load(tmp_path, EDGE_MODEL)

    def test_a_variable_makes_the_table(self, tmp_path: Path) -> None:
        assert load(tmp_path, EDGE_MODEL).grpc is None
        config = load(tmp_path, EDGE_MODEL, {"EDGEBURST_GRPC__PORT": "9002"})
        assert config.grpc == GrpcSection(host="127.0.0.1", port=9002)


class TestEnvironment:
    def test_it_overrides_by_the_keys_own_type(self, tmp_path: Path) -> None:
        environ = {
            "EDGEBURST_DAEMON__PORT": "9001",
            "EDGEBURST_DAEMON__LATE": "serve",
            "EDGEBURST_ENGINE__CHANGEPOINTS": "false",
            "EDGEBURST_ENGINE__UPLINK_BYTES_PER_S": "1e6",
            "EDGEBURST_EDGE__URL": "http://jetson.local:8700",
            "EDGEBURST_EDGE__CONNECT_TIMEOUT_S": "2",
        }
        config = load(tmp_path, "[daemon]\nport = 1\n" + EDGE_MODEL, environ)
        assert (config.daemon.port, config.daemon.late, config.engine.changepoints) == (9001, "serve", "off")
        assert config.engine.uplink_bytes_per_s == 1e6
        [edge] = config.edges
        assert (edge.url, edge.connect_timeout_s) == ("http://jetson.local:8700", 2.0)

    def test_it_makes_a_table_that_the_file_lacks(self, tmp_path: Path) -> None:
        text = EDGE_MODEL.replace("[edge]\n", "")
        assert load(tmp_path, text, {"EDGEBURST_EDGE__URL": "http://h:1"}).edges[0].url == "http://h:1"

    def test_other_variables_of_the_prefix_are_left_alone(self, tmp_path: Path) -> None:
        assert load(tmp_path, EDGE_MODEL, {"EDGEBURST_TRACES": "../shared/data"}).daemon.port == 8600

    @pytest.mark.parametrize(
        ("variable", "value", "sentence"),
        [
            ("EDGEBURST_DAEMON__PROT", "1", "unknown key `prot` in [daemon]; did you mean `port`?"),
            ("EDGEBURST_DEMON__PORT", "1", "no table [demon] can be overridden; did you mean EDGEBURST_DAEMON__PORT?"),
            ("EDGEBURST_MODEL__NAME", "x", "no table [model] can be overridden; EDGEBURST_TABLE__KEY works"),
            ("EDGEBURST_DAEMON__PORT", "many", "`port` in [daemon] must be a whole number, not a text"),
            ("EDGEBURST_DAEMON__PORT", "70000", "`port` in [daemon] must be at most 65535, not 70000"),
            ("EDGEBURST_DAEMON__LATE", "drop", "`late` in [daemon] must be 'refuse' or 'serve'"),
        ],
    )
    def test_its_mistakes_name_the_variable(self, tmp_path: Path, variable: str, value: str, sentence: str) -> None:
        found = refusal(tmp_path, EDGE_MODEL, {variable: value})
        assert found.startswith(f"environment variable {variable}: {sentence}")


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (
                "[engine]\nqueue_max_request = 5\n" + EDGE_MODEL,
                "edgeburst.toml:2: unknown key `queue_max_request` in [engine]; did you mean `queue_max_requests`?",
            ),
            (
                EDGE_MODEL + "[[model.class]]\nslo = 1.0\n",
                "edgeburst.toml:6: unknown key `slo` in [[model.class]]; did you mean `slo_s`?",
            ),
            (
                EDGE_MODEL + "slo_s = 1.0\n",
                "edgeburst.toml:5: unknown key `slo_s` in [[model]]; it belongs in [[model.class]]",
            ),
            ("[egde]\n" + EDGE_MODEL, "edgeburst.toml:1: unknown key `egde` in the file; did you mean `edge`?"),
            (
                "[daemon]\nxyzzy = 1\n" + EDGE_MODEL,
                "edgeburst.toml:2: unknown key `xyzzy` in [daemon]; the keys there are host, port, ",
            ),
            (
                '[daemon]\nport = "8600"\n' + EDGE_MODEL,
                "edgeburst.toml:2: `port` in [daemon] must be a whole number, not a text",
            ),
            (
                "[daemon]\nport = 86.5\n" + EDGE_MODEL,
                "edgeburst.toml:2: `port` in [daemon] must be a whole number, not 86.5",
            ),
            (
                "[daemon]\nport = true\n" + EDGE_MODEL,
                "edgeburst.toml:2: `port` in [daemon] must be a whole number, not true",
            ),
            (
                "[daemon]\nhost = 127\n" + EDGE_MODEL,
                "edgeburst.toml:2: `host` in [daemon] must be a text in quotes, not 127",
            ),
            (
                '[engine]\nchangepoints = "yes"\n' + EDGE_MODEL,
                "edgeburst.toml:2: `changepoints` in [engine] must be 'native', 'package' or 'off'",
            ),
            (
                "[spend]\nper_hour = -1\n" + EDGE_MODEL,
                "edgeburst.toml:2: `per_hour` in [spend] must be at least 0, not -1",
            ),
            (
                "[engine]\nplan_expiry_s = inf\n" + EDGE_MODEL,
                "edgeburst.toml:2: `plan_expiry_s` in [engine] must be a finite number",
            ),
            (
                "[daemon]\nmax_timeout_s = 0\n" + EDGE_MODEL,
                "edgeburst.toml:2: `max_timeout_s` in [daemon] must be above 0, not 0",
            ),
            (
                EDGE_MODEL + "[[model.class]]\npercentile = 99\n",
                "edgeburst.toml:6: `percentile` in [[model.class]] must be below 1",
            ),
            (
                EDGE_MODEL + '[[model.class]]\nlate = "maybe"\n',
                "edgeburst.toml:6: `late` in [[model.class]] must be 'refuse' or 'serve'",
            ),
            (
                "daemon = 5\n" + EDGE_MODEL,
                "edgeburst.toml:1: `daemon` must be a table; begin it with the line [daemon]",
            ),
            (
                "[edge]\n[model]\nname = 'x'\n",
                "edgeburst.toml:2: `model` must be a table; begin it with the line [[model]]",
            ),
            (
                EDGE_MODEL + "inputs = [3]\n",
                'edgeburst.toml:5: `inputs` in [[model]] must be a list like [{ name = "x"',
            ),
            ("[daemon]\n", "edgeburst.toml: there is no [[model]]; add one with a `name`"),
            (
                "[edge]\n[[model]]\nmax_items = 3\n",
                "edgeburst.toml:2: [[model]] lacks the key `name`: name of the model",
            ),
            (
                FUNCTION_MODEL.replace('profile = "fc-resnet50-1gb"\n', ""),
                "edgeburst.toml:4: [[model.tier]] lacks the key `profile`: measured latency",
            ),
            (
                EDGE_MODEL.replace("[edge]", '[edge]\nurl = "jetson:8700"'),
                "edgeburst.toml:2: `url` in [edge] does not fit its description: URL of the edge server, as http://HOST:PORT",
            ),
            (
                FUNCTION_MODEL.replace("[function]", '[function]\nendpoint = "https://x.aliyuncs.com"'),
                "edgeburst.toml:2: `endpoint` in [function] does not fit its description: HOST or HOST:PORT without http://",
            ),
            (
                EDGE_MODEL.replace('"digits"', '"a b"'),
                "edgeburst.toml:3: `name` in [[model]] must be made of letters, digits",
            ),
        ],
    )
    def test_one_sentence_with_file_line_and_key(self, tmp_path: Path, text: str, sentence: str) -> None:
        assert refusal(tmp_path, text).startswith(sentence)

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("[daemon]\nport 8600\n", 2, "expected '=' after a key"),
            ("[daemon]\nport = 1\nport = 2\n", 3, "cannot overwrite a value"),
            ("[daemon]\n[daemon]\n", 2, "cannot declare"),
            ('[daemon]\nhost = "127\n', 2, "illegal character"),
            ("[daemon]\nport = \n", 2, "invalid value"),
            ("x = [1,\n2", 2, "the end of the file"),
        ],
    )
    def test_what_is_no_toml_is_told_by_its_line(self, tmp_path: Path, text: str, line: int, words: str) -> None:
        sentence = refusal(tmp_path, text)
        assert sentence.startswith(f"edgeburst.toml:{line}: this is not TOML: ")
        assert words in sentence

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (
                EDGE_MODEL + '[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n',
                "edgeburst.toml:6: the model name digits occurs twice; rename one",
            ),
            (
                EDGE_MODEL + "[[model.class]]\n[[model.class]]\nslo_s = 2.0\n",
                "edgeburst.toml:6: the class name default occurs twice; rename one",
            ),
            (
                EDGE_MODEL + '[[tenant]]\nname = "lab"\n[[tenant]]\nname = "lab"\n',
                "edgeburst.toml:8: the tenant name lab occurs twice; rename one",
            ),
            (
                EDGE_MODEL + '[[tenant]]\nname = "other"\n',
                "edgeburst.toml:6: the tenant name other stands for all that are not configured; choose another one",
            ),
            (
                FUNCTION_MODEL + FUNCTION_MODEL[FUNCTION_MODEL.index("[[model.tier]]") :],
                "edgeburst.toml:10: the tier name 1gb occurs twice; rename one",
            ),
            (
                '[edge]\n[[model]]\nname = "digits"\n',
                "edgeburst.toml:2: no backend serves model digits; give it an `edge_profile`, a [[model.tier]]",
            ),
            (
                EDGE_MODEL.replace("[edge]\n", ""),
                "edgeburst.toml:3: model digits has an edge profile, but there is no edge; add an [edge] table",
            ),
            (
                FUNCTION_MODEL.replace("[function]\n", ""),
                "edgeburst.toml:3: tier 1gb needs a function account; add a [function] table",
            ),
            (
                EDGE_MODEL.replace('"digits"', '"digit"'),
                "edgeburst.toml:3: model digit is not in the catalogue (digits, mobilenet_v3_small, resnet50)",
            ),
            (
                EDGE_MODEL + 'inputs = [{ name = "x", datatype = "FP32" }]\n',
                "edgeburst.toml:2: model digits needs both `inputs` and `outputs`",
            ),
            (
                EDGE_MODEL + 'inputs = [{ name = "x", datatype = "FP32", shape = [3, 0] }]\n',
                "edgeburst.toml:5: `shape` in [[model.inputs]] does not fit its description: shape of one item",
            ),
            (
                EDGE_MODEL + f'inputs = [{{ name = "x", datatype = "FP32", ragged = true }}]\noutputs = {BOXES}\n',
                "edgeburst.toml:5: input x of model digits is ragged: only outputs can be",
            ),
            (
                EDGE_MODEL + f'inputs = [{{ name = "x", datatype = "FP32", finite = false }}]\noutputs = {BOXES}\n',
                "edgeburst.toml:5: `finite` of x says nothing: only outputs of floats have it",
            ),
            (
                EDGE_MODEL + f'inputs = [{{ name = "x", datatype = "FP32" }}]\noutputs = {BOXES_AND_ROWS}\n',
                "edgeburst.toml:6: output boxes_rows is added for a ragged output by itself; remove it",
            ),
            (
                EDGE_MODEL + "default_priority = 4\n",
                "edgeburst.toml:5: `default_priority` of model digits must be at most its `priority_levels`",
            ),
            (
                EDGE_MODEL.replace("orin-resnet50", "orin-resnet"),
                "edgeburst.toml:4: there is no profile or file",
            ),
            (
                EDGE_MODEL.replace("orin-resnet50", "fc-resnet50-1gb"),
                "edgeburst.toml:4: profile fc-resnet50-1gb was measured on the function; name one that was",
            ),
            (
                FUNCTION_MODEL.replace("[function]", '[function]\nprice_sheet = "cny"'),
                "edgeburst.toml:2: no price sheet",
            ),
            (
                FUNCTION_MODEL.replace("[function]", '[function]\nprice_sheet = "fc3-cu-usd"'),
                "edgeburst.toml:5: tier 1gb cannot be priced: vcpu must be above 0",
            ),
        ],
    )
    def test_contradictions_are_told_where_they_stand(self, tmp_path: Path, text: str, sentence: str) -> None:
        assert refusal(tmp_path, text).startswith(sentence)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"alpha_s": -0.1}, "alpha_s"),
            (
                {"rows": [{"batch": 1, "p50_s": -0.1, "p95_s": 0.1, "items_per_s": 10.0, "samples": 5}]},
                "p50_s",
            ),
            ({"max_batch": 0}, "max_batch"),
            ({"alpha_s": 0.0, "beta_s": 0.0}, "alpha_s"),
        ],
    )
    def test_a_profile_with_impossible_latencies_is_refused(
        self, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        (tmp_path / "mine.json").write_text(json.dumps(profile_json(**change)))
        sentence = refusal(tmp_path, EDGE_MODEL.replace("orin-resnet50", "mine.json"))
        assert sentence.startswith("edgeburst.toml:4: ")
        assert words in sentence
        assert "mine" in sentence

    def test_lines_are_counted_in_files_from_windows_too(self, tmp_path: Path) -> None:
        (tmp_path / "edgeburst.toml").write_bytes(b"# ours\r\n[daemon]\r\nhost = 'x'\r\nprot = 1\r\n")
        with pytest.raises(ConfigError, match=r"edgeburst\.toml:4: unknown key `prot`"):
            load_config(tmp_path / "edgeburst.toml", {})

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot be read \(No such file .*example\.toml"):
            load_config(tmp_path / "nowhere.toml", {})
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(tmp_path, {})
        path = tmp_path / "latin.toml"
        path.write_bytes(b'[daemon]\nhost = "\xe9"\n')
        with pytest.raises(ConfigError, match=r"latin\.toml:2: the file is not UTF-8"):
            load_config(path, {})
        path.write_bytes(b"# much\n" * 200_000)
        with pytest.raises(ConfigError, match="over 1000000 bytes"):
            load_config(path, {})


class TestSecrets:
    @pytest.mark.parametrize(
        "line",
        [
            f'access_key_id_env = "{SECRET}"',
            f'access_key_secret_env = "{SECRET}"',
            f'access_key_secret = "{SECRET}"',
            f'protocol = "{SECRET}"',
            f'endpoint = "key:{SECRET}@host"',
        ],
    )
    def test_one_in_the_wrong_place_is_refused_and_not_repeated(self, tmp_path: Path, line: str) -> None:
        sentence = refusal(tmp_path, FUNCTION_MODEL.replace("[function]", f"[function]\n{line}"))
        assert sentence.startswith("edgeburst.toml:2: ")
        assert SECRET not in sentence

    def test_a_key_instead_of_its_variables_name_is_told_what_belongs_there(self, tmp_path: Path) -> None:
        text = FUNCTION_MODEL.replace("[function]", f'[function]\naccess_key_id_env = "{SECRET}"')
        assert "must be the NAME of an environment variable" in refusal(tmp_path, text)

    def test_the_key_comes_from_the_variables_that_are_named(self, tmp_path: Path) -> None:
        text = FUNCTION_MODEL.replace("[function]", '[function]\nsecurity_token_env = "MY_TOKEN"')
        environ = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": "id",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET,
            "MY_TOKEN": "token",
        }
        key = read_access_key(load(tmp_path, text), environ)
        assert key == AccessKey("id", SECRET, "token")
        assert SECRET not in repr(key)

    def test_a_temporary_key_without_its_token_is_told_so(self, tmp_path: Path) -> None:
        environ = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "STS.abc", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET}
        config = load(tmp_path, FUNCTION_MODEL)
        with pytest.raises(ConfigError, match=r"begins with STS\., so it is a temporary one, and its token is missing"):
            read_access_key(config, environ)
        [warning] = [line for line in summary(config, environ)["warnings"] if "STS." in line]
        assert "security_token_env" in warning
        assert "STS.abc" not in warning
        assert SECRET not in warning
        text = FUNCTION_MODEL.replace("[function]", '[function]\nsecurity_token_env = "MY_TOKEN"')
        assert read_access_key(load(tmp_path, text), {**environ, "MY_TOKEN": "token"}).security_token == "token"

    def test_a_variable_that_is_not_set_is_named(self, tmp_path: Path) -> None:
        config = load(tmp_path, FUNCTION_MODEL)
        with pytest.raises(ConfigError, match="variable ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set; set it"):
            read_access_key(config, {"ALIBABA_CLOUD_ACCESS_KEY_ID": "id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""})

    def test_the_key_comes_from_the_file_beside_the_configuration(self, tmp_path: Path) -> None:
        text = FUNCTION_MODEL.replace("[function]", '[function]\naccess_key_file = "key.toml"')
        (tmp_path / "key.toml").write_text(f'access_key_id = "id"\naccess_key_secret = "{SECRET}"\n')
        config = load(tmp_path, text)
        assert read_access_key(config, {}) == AccessKey("id", SECRET)
        assert secret_references(config, {}) == ()

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "cannot be read"),
            (f"access_key_secret = {SECRET}\n", "must be TOML"),
            (f'access_key_secret = "{SECRET}"\n', "must set `access_key_id`"),
            (f'access_key_id = "x"\naccess_key_secret = "{SECRET}"\nkey = 1\n', "unknown key `key`"),
        ],
    )
    def test_a_wrong_key_file_is_told_without_its_content(
        self, tmp_path: Path, content: str | None, words: str
    ) -> None:
        text = FUNCTION_MODEL.replace("[function]", '[function]\naccess_key_file = "key.toml"')
        if content is not None:
            (tmp_path / "key.toml").write_text(content)
        config = load(tmp_path, text)
        with pytest.raises(ConfigError, match=words) as caught:
            read_access_key(config, {})
        assert SECRET not in str(caught.value)
        assert "edgeburst.toml:2" in str(caught.value)


class TestCommand:
    def test_it_shows_what_a_file_amounts_to_and_no_secret(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "my-id")
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET)
        assert main(["check-config", "--config", str(EXAMPLE)]) == 0
        shown = capsys.readouterr().out
        assert "is valid" in shown
        assert "from ALIBABA_CLOUD_ACCESS_KEY_SECRET: set" in shown
        assert SECRET not in shown
        assert "my-id" not in shown

    def test_programs_read_it_as_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID", raising=False)
        assert main(["check-config", "--config", str(EXAMPLE), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["valid"] is True
        assert found["models"][0]["tiers"][0]["name"] == "1gb"
        assert {"purpose": "access key id", "variable": "ALIBABA_CLOUD_ACCESS_KEY_ID", "set": False} in found["secrets"]
        assert any("ALIBABA_CLOUD_ACCESS_KEY_ID is not set" in warning for warning in found["warnings"])

    def test_a_mistake_is_one_line_on_stderr_or_json(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[daemon]\nprot = 1\n")
        assert main(["check-config", "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert error == f"edgeburst: {path}:2: unknown key `prot` in [daemon]; did you mean `port`?\n"
        assert main(["check-config", "--config", str(path), "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["valid"] is False

    def test_a_hopeless_objective_is_a_warning(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text(EDGE_MODEL + "[[model.class]]\nslo_s = 0.01\n")
        assert main(["check-config", "--config", str(path)]) == 0
        assert "warning: class default of model digits has an SLO of 0.01 s" in capsys.readouterr().out

    def test_what_is_kept_of_decisions_is_told(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text(f'[explain]\nring = 50\nfile = "why.jsonl"\n{EDGE_MODEL}')
        assert main(["check-config", "--config", str(path)]) == 0
        assert f"explains     the latest 50 requests, and writes {tmp_path / 'why.jsonl'}\n" in capsys.readouterr().out
        assert main(["check-config", "--config", str(path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["explain"]
        assert told == {"ring": 50, "file": str(tmp_path / "why.jsonl")}

    def test_caps_are_told_with_their_currency_and_one_that_lets_nothing_through_is_a_warning(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[spend]\nper_hour = 1e-9\nper_day = 12\n" + FUNCTION_MODEL)
        assert main(["check-config", "--config", str(path)]) == 0
        told = capsys.readouterr().out
        assert "spends       at most 1e-09 CNY in any hour, 12 CNY in any 24 hours; above that: edge-only\n" in told
        assert re.search(
            r"warning: `per_hour` in \[spend\] is 1e-09, but \S+ is the least with which model digits", told
        )
        assert "`per_day` in [spend]" not in told

    @pytest.mark.parametrize(
        ("spend", "words"),
        [
            ("per_hour = 0.04", "cost 0.04572 CNY an hour while idle, which uses up `per_hour` = 0.04 in [spend]"),
            ("per_day = 1.0", "cost 1.097 CNY a day while idle, which uses up `per_day` = 1 in [spend]"),
        ],
    )
    def test_a_cap_that_provisioned_instances_use_up_while_idle_is_refused(
        self, spend: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """1 GB at 1.27e-5 CNY a second."""
        path = tmp_path / "c.toml"
        deploy = '[deploy]\nimage = "i"\nprovisioned = { 1gb = 1 }\n'
        path.write_text(f"[spend]\n{spend}\n{deploy}{FUNCTION_MODEL}")
        assert main(["check-config", "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"edgeburst: {path}:2: the instances in `provisioned` of [deploy] {words}; raise it")
        path.write_text(f"[spend]\nper_hour = 0.05\nper_day = 1.2\n{deploy}{FUNCTION_MODEL}")
        assert main(["check-config", "--config", str(path)]) == 0
        [model] = load_config(path, {}).engine_settings().models
        assert (model.tiers[0].provisioned, model.tiers[0].idle_per_s) == (1, 1.27e-5)


class TestLines:
    def test_tables_keys_and_arrays_are_found_past_everything_that_spans_lines(self) -> None:
        text = (
            "# a comment with [brackets] and key = 1\n"
            "top = 1\n"
            "[a]\n"
            'long = """\n[not.a.table]\nx = 1\n"""\n'
            "list = [\n  1, # ]\n  '#',\n]\n"
            '"quoted.key" = "a # b"\n'
            "a.b.c = { d = 1, e = [1] }\n"
            "[[m]]\n"
            "x = 1\n"
            "  [[m.n]]\n"
            "  [[m]]\n"
            "  [[m.n]]\n"
            "  [[m.n]]\n"
            "  y = 2\n"
            "[m.o]\n"
            "z = 3\n"
        )
        lines = line_index(text)
        found = {path: text.splitlines()[line - 1].strip() for path, line in lines.items()}
        assert found[("top",)] == "top = 1"
        assert found[("a", "list")] == "list = ["
        assert found[("a", "quoted.key")] == '"quoted.key" = "a # b"'
        assert found[("a", "a", "b", "c")].startswith("a.b.c")
        assert found[("m", 0, "x")] == "x = 1"
        assert found[("m", 1, "n", 1, "y")] == "y = 2"
        assert found[("m", 1, "o", "z")] == "z = 3"
        assert ("x",) not in lines
        assert line_of(("m", 1, "n", 1, "y", "deeper"), lines) == lines[("m", 1, "n", 1, "y")]
        assert line_of(("nowhere",), lines) is None

    @given(
        st.dictionaries(
            st.sampled_from("abcdef"),
            st.dictionaries(
                st.sampled_from("uvwxyz"),
                st.one_of(st.integers(), st.text(alphabet="ab#[]=\"'\\\n ", max_size=12), st.lists(st.integers())),
                min_size=1,
            ),
            min_size=1,
        )
    )
    def test_every_key_that_the_parser_sees_is_on_the_line_that_writes_it(
        self, tables: dict[str, dict[str, int | str | list[int]]]
    ) -> None:
        text, expected = "", {}
        for table, keys in tables.items():
            text += f"[{table}]\n"
            for key, value in keys.items():
                expected[(table, key)] = text.count("\n") + 1
                spread = isinstance(value, list)
                text += f"{key} = {json.dumps(value, indent=1) if spread else json.dumps(value)}  # {key} = 0\n"
        assert TOML.loads(text) == tables
        lines = line_index(text)
        assert {path: line for path, line in lines.items() if len(path) == 2} == expected


def profile_json(**changes: Any) -> dict[str, Any]:
    """A valid edge profile, and whatever is changed in it."""
    return {
        "name": "mine",
        "backend": "edge",
        "model": "digits",
        "device": "a test",
        "source": "this test",
        "date": "2026-01-01",
        "note": "",
        "rows": [],
        "alpha_s": 0.1,
        "beta_s": 0.01,
        "max_batch": 8,
        "environment": {},
    } | changes


class TestOtel:
    TABLE = '[otel]\nendpoint = "http://127.0.0.1:4318"\n'

    def test_its_packages_are_asked_for_only_where_it_is_configured(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = importlib.util.find_spec

        def find_spec(name: str, package: str | None = None) -> object:
            return None if name.startswith("opentelemetry") else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        with pytest.raises(ConfigError, match=r"edgeburst\.toml:1: \[otel\] needs .* 'edgeburst\[otel\]'"):
            load(tmp_path, self.TABLE + EDGE_MODEL)
        assert load(tmp_path, EDGE_MODEL).otel is None

    def test_its_keys_have_defaults(self, tmp_path: Path) -> None:
        section = load(tmp_path, self.TABLE + EDGE_MODEL).otel
        assert section is not None
        assert (section.service_name, section.sample_ratio) == ("edgeburst", 1.0)

    @pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://user@collector:4318", "http://"])
    def test_what_is_no_url_is_refused(self, tmp_path: Path, endpoint: str) -> None:
        with pytest.raises(ConfigError, match=r"edgeburst\.toml:2: .*endpoint"):
            load(tmp_path, f'[otel]\nendpoint = "{endpoint}"\n' + EDGE_MODEL)
