"""What helexa-ctl shows, from what the daemon tells."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.control import layout, screen

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_secs": 11_550,
    "activation": {
        "state": "loading",
        "loading": ["big"],
        "pending": [],
        "failed": ["ghost"],
        "why": {"ghost": "no room"},
    },
    "gateway": {"url": "http://127.0.0.1:31313"},
    "node": {"url": "http://127.0.0.1:13131"},
    "metrics": {"url": "http://127.0.0.1:31314"},
    "devices": [
        {
            "index": 0,
            "name": "RTX 5090",
            "vram_used_mb": 16_384,
            "vram_total_mb": 32_768,
            "utilization_percent": 87,
            "temperature_c": 61,
            "power_w": 320.4,
            "foreign_mb": 2_048,
        },
        {"index": 1, "name": "CPU", "vram_used_mb": 0, "vram_total_mb": 8_192},
    ],
    "models": [
        {
            "id": "demo",
            "status": "loaded",
            "devices": [0],
            "vram_used_mb": 819,
            "in_flight": 2,
            "queue_depth": 1,
            "limit": {"context": 8192, "input": 6144, "output": 2048},
            "kv_tokens": 512,
            "kv_pool_tokens": 65536,
            "tokens_per_second": 812.34,
        },
        {"id": "ghost", "status": "failed", "error": "it needs 9000 MB"},
    ],
    "errors": [
        {"time": 0, "message": "model ghost could not be loaded"},
        {"time": "2025-01-01T12:30:00.500+00:00", "message": "device crashed"},
    ],
    "open": {"sequences": 2, "slots": 2, "reservations": 0},
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_a_status_shows_everything_at_a_glance() -> None:
    assert screen.status(STATUS) == (
        "helexa 0.1.0 · up 3 h 12 min · loading\n"
        "loading: big\n"
        "failed: ghost: no room\n"
        "\n"
        "gateway  http://127.0.0.1:31313\n"
        "node     http://127.0.0.1:13131\n"
        "metrics  http://127.0.0.1:31314\n"
        "\n"
        "DEVICE      MEMORY                                                              LOAD   TEMP  POWER\n"
        "0 RTX 5090  ██████████░░░░░░░░░░ 16.0 GB of 32.0 GB (2.0 GB by other programs)  87 %  61 °C  320 W\n"
        "1 CPU       ░░░░░░░░░░░░░░░░░░░░ 0.0 GB of 8.0 GB                                  -      -      -\n"
        "\n"
        "MODEL  STATUS  DEVICE  MEMORY  RUNNING  WAITING  INPUT  OUTPUT         KV  TOK/S\n"
        "demo   loaded  0       0.8 GB        2        1   6144    2048  512/65536  812.3\n"
        "ghost  failed  -            -        -        -      -       -          -      -  it needs 9000 MB\n"
        "\n"
        "LAST ERRORS\n"
        "00:00:00  model ghost could not be loaded\n"
        "12:30:00  device crashed\n"
        "\n"
        "open: 2 sequences, 2 slots, 0 reservations"
    )


NODES: list[dict[str, Any]] = [
    {"name": "local", "kind": "local", "up": True, "devices": [{"index": 0, "name": "own"}]},
    {
        "name": "gpu1",
        "kind": "helexa",
        "up": True,
        "draining": True,
        "stored": ["a", "b"],
        "devices": [
            {"index": 0, "name": "RTX 4090", "vram_total_mb": 24_576, "vram_used_mb": 12_288},
            {"index": 1, "name": "T4", "vram_total_mb": 0, "poisoned": True},
        ],
        "models": [
            {
                "id": "big",
                "status": "loaded",
                "in_flight": 1,
                "queue_depth": 0,
                "limit": {"input": 3072, "output": 1024},
                "pinned": True,
            },
            {"id": "odd", "status": "failed", "error": "torn"},
        ],
    },
    {
        "name": "cloud",
        "kind": "openai",
        "up": False,
        "why_down": "Connection refused",
        "devices": [{"index": 0, "name": "L4", "vram_total_mb": 24_576, "vram_used_mb": 12_288}],
    },
]


def test_a_gateway_shows_the_devices_store_limits_and_errors_of_every_node() -> None:
    shown = screen.status({"version": "0.1.0", "nodes": NODES}, plain=True)
    assert shown.split("\n\n")[1].split("\n") == [
        "NODE   STATE     DEVICE      MEMORY                                   STORED",
        "gpu1   draining  0 RTX 4090  ##########.......... 12.0 GB of 24.0 GB       2",
        "                 1 T4        -                                                poisoned",
        "cloud  down      0 L4        -                                             -  Connection refused",
    ]
    assert shown.split("\n\n")[2].split("\n") == [
        "NODE  MODEL  STATUS  RUNNING  WAITING  INPUT  OUTPUT",
        "gpu1  big    loaded        1        0   3072    1024  pinned",
        "gpu1  odd    failed        -        -      -       -  torn",
    ]


def test_a_device_tells_what_it_can_do_and_why_not_the_rest() -> None:
    cpu = {
        "dtype": "fp32",
        "dtypes": {"fp32": "", "bf16": "this processor emulates bf16"},
        "weights": {"none": "", "int4": "", "fp8": "fp8 needs a CUDA card"},
        "attention": {"torch": "", "compiled": ""},
    }
    card = {"dtype": "bf16", "dtypes": {"fp32": "", "bf16": ""}, "weights": {"none": ""}}
    devices = [{"index": 0, "abilities": cpu}, {"index": 1, "abilities": card}, {"index": 2}]
    assert screen.abilities(devices) == [
        "DEVICE  NUMBERS           WEIGHTS     ATTENTION",
        "0       fp32              none, int4  torch, compiled  this processor emulates bf16; "
        "fp8 needs a CUDA card",
        "1       bf16 (also fp32)  none",
    ]


def test_an_own_node_that_is_draining_is_told_as_such() -> None:
    own = {"name": "local", "kind": "local", "up": True, "draining": True}
    told = {"gateway": {"url": "http://a"}, "node": {"url": "http://b"}, "nodes": [own]}
    assert "gateway  http://a\nnode     http://b  draining" in screen.status(told)
    assert "draining" not in screen.status(told | {"nodes": [own | {"draining": False}]})


def test_models_of_several_nodes_are_told_apart() -> None:
    found = [{"id": "a", "node": "gpu1"}, {"id": "a", "node": "gpu2", "pinned": True}, {"id": "b"}]
    shown = [line.split() for line in screen.models(found)]
    assert shown[0][:3] == ["NODE", "MODEL", "STATUS"]
    assert [line[:2] for line in shown[1:]] == [["gpu1", "a"], ["gpu2", "a"], ["-", "b"]]
    assert shown[2][-1] == "pinned"
    assert screen.models(found[:1])[0].startswith("MODEL")


def test_a_plain_status_keeps_to_ascii() -> None:
    plain = screen.status(STATUS, plain=True)
    assert plain.isascii()
    assert "##########.......... 16.0 GB" in plain


def test_a_status_of_which_much_is_missing_is_shown_too() -> None:
    assert screen.status({}) == "helexa ?"
    bare: dict[str, Any] = {"devices": [{}], "models": [{}], "gateway": None, "open": {}}
    assert "DEVICE" in screen.status(bare)


@given(st.text(st.characters()))
def test_nothing_that_is_shown_can_move_the_cursor(text: str) -> None:
    told = {
        "version": text,
        "gateway": {"url": text},
        "activation": {"state": text, "failed": [text]},
        "devices": [{"index": 0, "name": text}],
        "models": [{"id": text, "status": text, "error": text, "devices": [text]}],
        "errors": [{"time": 0, "message": text}],
        "open": {text: 1},
    }
    record = dict.fromkeys(("request_id", "key", "model", "code", "account", "dialect"), text)
    shown = [
        screen.status(told),
        *screen.requests([record]),
        *screen.why({**record, "decisions": [(1.0, text)]}),
    ]
    for line in "\n".join(shown).split("\n"):
        assert "\x1b" not in line
        assert len(line.splitlines()) <= 1
        line.encode()


def test_requests_are_a_table() -> None:
    record = {
        "time": 0,
        "request_id": "req_1",
        "key": "laptop",
        "model": "demo",
        "status": 200,
        "finish": "stop",
        "queue_seconds": 0.001,
        "load_seconds": 0.0,
        "prefill_seconds": 0.25,
        "decode_seconds": 2.5,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 50,
        "tokens_per_second": 19.6,
    }
    refused = {"time": 1, "request_id": "req_2", "status": 503, "code": "rate_limit_exceeded"}
    assert screen.requests([record, refused]) == [
        "TIME      REQUEST  KEY     MODEL  STATUS                   QUEUE  LOAD  PREFILL  DECODE"
        "   IN  CACHED  OUT  TOK/S",
        "00:00:00  req_1    laptop  demo   200 stop                  1 ms     -   250 ms   2.5 s"
        "  100      40   50   19.6",
        "00:00:01  req_2    -       -      503 rate_limit_exceeded      -     -        -       -"
        "    -       -    -      -",
    ]
    assert screen.requests([]) == ["no requests"]


def test_one_request_is_told_with_what_was_decided_and_when() -> None:
    record = {
        "request_id": "req_1",
        "client_request_id": "mine",
        "time": 0,
        "account": "ada",
        "key": "laptop",
        "model": "demo",
        "dialect": "chat",
        "stream": True,
        "status": 200,
        "finish": "stop",
        "seconds": 2.9,
        "queue_seconds": 0.001,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "decisions": [(0.0, "alias demo"), (0.012, "a slot was free")],
    }
    assert screen.why(record) == [
        "request req_1",
        "  the client's id  mine",
        "  came     00:00:00",
        "  from     ada / laptop",
        "  model    demo",
        "  dialect  chat, streamed",
        "  ended    200 stop",
        "  took     2.9 s",
        "  queue    1 ms",
        "  tokens   100 in (0 cached), 50 out",
        "      0.000 s  alias demo",
        "      0.012 s  a slot was free",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_600, "1 h 0 min"), (180_000, "2 d 2 h")],
)
def test_a_duration_is_told_in_two_units_at_most(seconds: float, words: str) -> None:
    assert layout.duration(seconds) == words


@pytest.mark.parametrize(
    ("part", "whole", "bar"),
    [(0, 4, "...."), (2, 4, "##.."), (9, 4, "####"), (-1, 4, "...."), (1, 0, "....")],
)
def test_a_bar_stays_in_its_frame(part: float, whole: float, bar: str) -> None:
    assert layout.bar(part, whole, 4, plain=True) == bar
