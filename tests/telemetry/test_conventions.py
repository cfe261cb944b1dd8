"""Old names, new names or both, as OTEL_SEMCONV_STABILITY_OPT_IN says."""

import pytest

from penstock.calls.spec import RequestSpec
from penstock.telemetry.conventions import SECONDS, TOKENS, operation_of, provider_of
from penstock.telemetry.wanted import exporters
from penstock.wire.usage import Usage
from tests.telemetry.recorder import OPT_IN, Recorder
from tests.virtual_loop import run_virtual

NEW = "gen_ai_latest_experimental"
OLD_CHAT = {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
INFERENCE = "gen_ai.client.inference"
NEW_CHAT = {
    f"{INFERENCE}.duration",
    f"{INFERENCE}.operation.input_tokens",
    f"{INFERENCE}.operation.output_tokens",
    f"{INFERENCE}.usage.cache_read.input_tokens",
    f"{INFERENCE}.usage.input_tokens",
    f"{INFERENCE}.usage.output_tokens",
}
NEW_EMBEDDINGS = {
    "gen_ai.client.embeddings.duration",
    "gen_ai.client.embeddings.operation.input_tokens",
}


@pytest.mark.parametrize(
    ("endpoint", "asked", "names"),
    [
        ("chat", "", OLD_CHAT),
        ("chat", "http", OLD_CHAT),
        ("messages", f"http/dup, {NEW}", NEW_CHAT),
        ("responses", f"{NEW}/dup", OLD_CHAT | NEW_CHAT),
        ("embeddings", "", OLD_CHAT),
        ("embeddings", NEW, NEW_EMBEDDINGS),
        ("images", NEW, {"gen_ai.client.operation.duration"}),
    ],
)
def test_names(endpoint: str, asked: str, names: set[str]) -> None:
    recorder = Recorder({OPT_IN: asked})

    async def main() -> None:
        async with recorder.gate().admit(RequestSpec(model="m", endpoint=endpoint)) as slot:
            slot.settle(Usage(12, 7, cached_tokens=5))

    run_virtual(main())
    assert {name for name in recorder.points() if name.startswith("gen_ai")} == names


def test_boundaries_are_the_conventions_and_longer_for_those_who_wait() -> None:
    assert SECONDS[:14] == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    assert SECONDS[-1] > 20 * 60
    assert TOKENS == (
        1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("team.openai.azure.com", "azure.ai.openai"),
        ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("api.x.ai", "x_ai"),
        ("api.relax.ai", "openai"),
        ("", "openai"),
    ],
)
def test_a_providers_host_names_it(host: str, provider: str) -> None:
    assert provider_of(host, "openai") == provider


def test_what_has_no_name_in_the_conventions_keeps_its_own() -> None:
    assert operation_of("speech") == "speech"
    assert provider_of("", "") == "unknown"


BOTH = {"traces": ["otlp"], "metrics": ["otlp"]}
WHERE = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("env", "enabled", "names"),
    [
        ({}, None, {}),
        ({"OTEL_SERVICE_NAME": "x"}, None, {}),
        ({}, True, BOTH),
        ({WHERE: "http://c:4318"}, None, BOTH),
        ({WHERE: "http://c:4318"}, False, {}),
        ({WHERE: "http://c:4318", "OTEL_SDK_DISABLED": "True"}, True, {}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, None, {"traces": ["otlp"]}),
        ({"OTEL_METRICS_EXPORTER": "console, otlp"}, None, {"metrics": ["console", "otlp"]}),
        ({WHERE: "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, None, {"traces": ["otlp"]}),
    ],
)
def test_the_environment_or_a_setting_says_whether(
    env: dict[str, str], enabled: bool | None, names: dict[str, list[str]]
) -> None:
    assert exporters(env, enabled=enabled) == names
