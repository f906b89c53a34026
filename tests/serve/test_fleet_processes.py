"""Real nodes behind a real gateway: cold loads, evictions, and nodes that die, hang or restart."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_processes import Fleet, beside, fleet_of, results, until
from process import Helexa, call

SLOW_WORDS = 15


@pytest.fixture(scope="module")
def shared(store_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet"), store_dir, ("east", "west")) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    """For tests that leave two nodes and a gateway running."""
    shared.empty()
    return shared


@pytest.fixture
def mortal(tmp_path: Path, store_dir: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, store_dir, ("east", "west")) as fleet:
        yield fleet


@pytest.fixture
def one(tmp_path: Path, store_dir: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, store_dir, ("east",)) as fleet:
        yield fleet


def test_twenty_who_ask_at_once_for_a_cold_model_bring_about_one_load(fleet: Fleet) -> None:
    with beside(20) as pool:
        answers = results([pool.submit(fleet.ask, "sloth") for _ in range(20)])
    assert {status for status, _, _ in answers} <= {200, 503}
    good = [(headers, told) for status, headers, told in answers if status == 200]
    assert len(good) >= 8  # the others find a full queue
    assert {told["choices"][0]["message"]["content"] for _, told in good} == {"At your service."}
    assert {headers["x-helexa-node"] for headers, _ in good} <= {"east", "west"}
    assert fleet.loads_of("sloth") == 1
    fleet.wait_for_rest()


def test_a_model_makes_room_when_its_stream_is_over_and_not_before(one: Fleet) -> None:
    stream = one.stream("ant").read(2)
    with beside(1) as pool:
        asked = pool.submit(one.ask, "bee")
        stream.read()
        status, _, told = asked.result(timeout=30)
    assert (stream.is_done, stream.error) == (True, None)
    assert len("".join(stream.said).split()) == SLOW_WORDS
    assert (status, told["model"]) == (200, "bee")
    assert (one.where("ant"), one.where("bee")) == ([], ["east"])
    one.wait_for_rest()


def test_two_nodes_serve_two_models_without_taking_turns(fleet: Fleet) -> None:
    for model in ("ant", "bee", "ant", "bee"):
        assert fleet.ask(model)[0] == 200
    assert (fleet.loads_of("ant"), fleet.loads_of("bee")) == (1, 1)


def test_a_node_that_dies_in_the_middle_ends_the_stream_in_words(mortal: Fleet) -> None:
    stream = mortal.stream("ant").read(2)
    (name,) = mortal.where("ant")
    mortal.nodes[name].kill()
    stream.read()
    assert stream.error is not None, stream.said
    assert stream.error["message"]
    status, headers, _ = mortal.ask("ant")
    assert (status, headers["x-helexa-node"]) == (200, ({"east", "west"} - {name}).pop())
    mortal.wait_until_down(name)
    mortal.wait_for_rest()


def test_a_node_that_dies_while_it_loads_costs_a_wait_and_no_answer(mortal: Fleet) -> None:
    with beside(1) as pool:
        asked = pool.submit(mortal.ask, "sloth")
        until(
            lambda: any(
                model["status"] == "loading"
                for node in mortal.nodes.values()
                for model in node.status["models"]
            )
        )
        (name,) = [n for n, node in mortal.nodes.items() if node.status["models"]]
        mortal.nodes[name].kill()
        status, headers, _ = asked.result(timeout=30)
    assert (status, headers["x-helexa-node"]) == (200, ({"east", "west"} - {name}).pop())


def test_a_node_that_hangs_is_left_and_found_again(mortal: Fleet) -> None:
    assert mortal.ask("ant")[0] == 200
    (name,) = mortal.where("ant")
    mortal.nodes[name].process.send_signal(signal.SIGSTOP)
    mortal.wait_until_down(name)
    status, headers, _ = mortal.ask("ant")
    assert (status, headers["x-helexa-node"]) == (200, ({"east", "west"} - {name}).pop())
    mortal.nodes[name].process.send_signal(signal.SIGCONT)
    mortal.wait_until_up(name)
    mortal.wait_for_rest()


def test_a_wrong_token_is_told_as_what_it_is(fleet: Fleet) -> None:
    fleet.gateway.stop()
    fleet.start_gateway("of-somebody-else").wait_ready()
    until(lambda: all("token" in view["why_down"] for view in fleet.views().values()))
    status, headers, told = fleet.ask("ant")
    assert (status, headers["retry-after"]) == (503, "5"), told
    fleet.gateway.stop()
    fleet.start_gateway().wait_ready()
    fleet.wait_until_up("east", "west")


def test_restarting_one_node_after_the_other_fails_no_request(fleet: Fleet) -> None:
    assert fleet.ask("ant")[0] == fleet.ask("bee")[0] == 200
    stop = threading.Event()

    def go_on_asking(model: str) -> list[int]:
        found = []
        while not stop.is_set():
            found.append(fleet.ask(model)[0])
        return found

    with beside(4) as pool:
        asking = [pool.submit(go_on_asking, model) for model in ("ant", "bee", "ant", "bee")]
        try:
            for name in ("east", "west"):
                assert fleet.nodes[name].stop() == 0
                fleet.start_node(name).wait_ready()
                fleet.wait_until_up(name)
        finally:
            stop.set()
        statuses = [status for each in results(asking) for status in each]
    assert len(statuses) > 20
    assert set(statuses) == {200}
    fleet.wait_for_rest()


def test_a_gateway_that_restarts_finds_what_is_loaded(fleet: Fleet) -> None:
    assert fleet.ask("ant")[0] == 200
    fleet.gateway.kill()
    fleet.start_gateway().wait_ready()
    fleet.wait_until_up("east", "west")
    assert fleet.ask("ant")[0] == 200
    assert fleet.loads_of("ant") == 1


def test_a_client_that_leaves_stops_the_answer_on_the_node(fleet: Fleet) -> None:
    stream = fleet.stream("ant").read(2)
    stream.response.close()
    fleet.wait_for_rest()


def test_a_node_that_is_drained_finishes_what_it_does_and_gets_no_more(fleet: Fleet) -> None:
    stream = fleet.stream("ant").read(2)
    (name,) = fleet.where("ant")
    told = fleet.gateway.ctl("drain", name)
    assert told.returncode == 0, told.stderr
    assert fleet.views()[name]["draining"]
    status, headers, _ = fleet.ask("ant")
    assert (status, headers["x-helexa-node"]) == (200, ({"east", "west"} - {name}).pop())
    assert stream.read().is_done
    assert fleet.gateway.ctl("drain", name, "--off").returncode == 0


def test_ctl_tells_every_node_and_what_a_request_would_bring_about(fleet: Fleet) -> None:
    assert fleet.ask("ant")[0] == 200
    planned = fleet.gateway.ctl("plan", "bee")
    assert planned.returncode == 0, planned.stderr
    assert "bee" in planned.stdout
    models = fleet.gateway.ctl("models").stdout
    assert "ant" in models
    (name,) = fleet.where("ant")
    assert fleet.gateway.ctl("unload", "ant", "--node", name).returncode == 0
    assert fleet.where("ant") == []
    assert fleet.gateway.ctl("load", "ant", "--node", "west").returncode == 0
    assert fleet.where("ant") == ["west"]
    assert "model loaded" in fleet.gateway.ctl("logs", "--node", "west").stdout
    limited = fleet.gateway.ctl("why-limit", "ant", "--node", "west")
    assert "ant (loaded): context" in limited.stdout, limited.stderr
    away = fleet.gateway.ctl("logs", "--node", "north")
    assert (away.returncode, "it has east, west" in away.stderr) == (1, True)
    shown = fleet.gateway.ctl("status").stdout
    assert "up" in shown.splitlines()[0]
    assert all(f"\n{name}  up " in shown for name in ("east", "west"))
    assert fleet.gateway.status["activation"]["state"] == "ready"
    health = call("GET", f"{fleet.url}/health")[2]
    assert health == {"status": "ok", "activation": {"state": "ready"}}


def test_a_gateway_and_its_own_node_are_told_of_as_one(scripts: Helexa) -> None:
    scripts.control("load", model="scripted")
    scripts.control("pin", model="scripted", node="local")
    until(lambda: scripts.status["activation"]["state"] == "ready")
    status = scripts.status
    none: dict[str, object] = {"loading": [], "pending": [], "failed": [], "why": {}}
    assert status["activation"] == none | {"state": "ready"}
    assert [model["pinned"] for model in status["models"] if model["id"] == "scripted"] == [True]
    assert "pinned" in scripts.ctl("models").stdout
    scripts.control("unpin", model="scripted", node="local")
    assert not any(model["pinned"] for model in scripts.status["models"])
    health = call("GET", f"{scripts.url()}/health")[2]
    assert health["activation"] == {"state": "ready"}
