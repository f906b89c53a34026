"""What Prometheus scrapes: the reference's names with our prefix, clean, and without what clients sent."""

import shutil
import subprocess

import pytest
from process import MODEL, Helexa, call, chat
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.real

NAMES = {
    "helexa_requests_total",
    "helexa_request_duration_seconds_count",
    "helexa_time_to_first_token_seconds_count",
    "helexa_inter_token_latency_seconds_count",
    "helexa_longest_token_gap_seconds_count",
    "helexa_tokens_per_second_count",
    "helexa_prompt_tokens_total",
    "helexa_completion_tokens_total",
    "helexa_cold_starts_total",
    "helexa_model_loads_total",
    "helexa_model_load_seconds_count",
    "helexa_queue_wait_seconds_count",
    "helexa_admissions_total",
    "helexa_requests_in_flight",
    "helexa_requests_queued",
    "helexa_request_slots",
    "helexa_queue_keys",
    "helexa_queue_expected_wait_seconds",
    "helexa_kv_cache_tokens",
    "helexa_kv_cache_bytes",
    "helexa_kv_pool_tokens",
    "helexa_prefix_cache_bytes",
    "helexa_prefix_cache_entries",
    "helexa_prefix_cache_hits_total",
    "helexa_prefix_cache_saved_tokens_total",
    "helexa_prefix_cache_evictions_total",
    "helexa_preemptions_total",
    "helexa_drafted_tokens_total",
    "helexa_accepted_tokens_total",
    "helexa_device_memory_bytes",
    "helexa_device_memory_used_bytes",
    "helexa_device_poisoned",
    "helexa_build_info",
}


def scrape(served: Helexa) -> str:
    status, _, text = call("GET", served.url("metrics") + "/metrics")
    assert status == 200
    return str(text)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Value by sample name and model."""
    return {
        (sample.name, sample.labels.get("model", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_is_there_after_a_request_and_counts_it(served: Helexa) -> None:
    call("POST", served.url() + "/v1/chat/completions", chat())
    before = samples(scrape(served))
    assert {name for name, _ in before} >= NAMES
    _, _, answer = call("POST", served.url() + "/v1/chat/completions", chat())
    after = samples(scrape(served))
    for name, kind in (
        ("helexa_prompt_tokens_total", "prompt_tokens"),
        ("helexa_completion_tokens_total", "completion_tokens"),
    ):
        grown = after[name, MODEL] - before[name, MODEL]
        assert grown == answer["usage"][kind]


def test_a_model_that_a_client_made_up_is_no_label(served: Helexa) -> None:
    call("POST", served.url() + "/v1/chat/completions", chat() | {"model": "made-up-by-a-client"})
    text = scrape(served)
    assert "made-up-by-a-client" not in text
    assert 'model="unknown"' in text


def test_promtool_finds_nothing_to_say(served: Helexa) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: Debian's package prometheus has it")
    call("POST", served.url() + "/v1/chat/completions", chat())
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(served),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
