"""A real gateway and a real node, beside a node that goes wrong: nobody is failed, nothing is left over."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from fleet_processes import TOKEN, Fleet, Stream, beside, fleet_of, results, until
from made_up_model import SOURCE, made_up_model
from process import call
from wild_node import Mode, WildNode, wild_node

NUM_ASKED = 12  # the sessions of so many conversations prefer both nodes


@pytest.fixture(scope="module")
def wild() -> Iterator[WildNode]:
    with wild_node() as wild:
        yield wild


@pytest.fixture(scope="module")
def fleet(
    wild: WildNode, store_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """`east` has ant loaded, and `wild` says the same of itself."""
    folder = tmp_path_factory.mktemp("wild")
    with fleet_of(folder, store_dir, ("east",), {"wild": wild.port}) as fleet:
        assert fleet.ask("ant")[0] == 200
        yield fleet


@contextmanager
def going(fleet: Fleet, wild: WildNode, mode: Mode) -> Iterator[None]:
    """`wild` was seen well, and goes wrong now; in the end all is at rest, and well again."""
    wild.mode = "well"
    fleet.wait_until_up("east", "wild")
    before = wild.num_answers
    until(lambda: all_answered(fleet) and wild.num_answers > before)  # its breaker lets it be asked
    wild.mode = mode
    try:
        yield
    finally:
        wild.mode = "well"
    fleet.wait_for_rest()
    until(lambda: wild.num_open == 0)
    fleet.wait_until_up("wild")


def ask_all(fleet: Fleet) -> list[tuple[int, str]]:
    """Status and text of the answers to so many conversations."""
    with beside(4) as pool:
        asked = [pool.submit(fleet.ask, "ant", f"Hello {i}.") for i in range(NUM_ASKED)]
        answers = results(asked)
    return [(status, told["choices"][0]["message"]["content"]) for status, _, told in answers]


def all_answered(fleet: Fleet) -> bool:
    return {status for status, _ in ask_all(fleet)} == {200}


def test_a_node_that_answers_garbage_costs_another_try(fleet: Fleet, wild: WildNode) -> None:
    with going(fleet, wild, "garbage"):
        before = wild.num_answers
        assert set(ask_all(fleet)) == {(200, "At your service.")}
        assert wild.num_answers > before
        assert fleet.views()["wild"]["up"]  # it tells of itself as it should


def test_a_node_that_tells_nonsense_of_itself_is_left(fleet: Fleet, wild: WildNode) -> None:
    with going(fleet, wild, "mad"):
        fleet.wait_until_down("wild")
        assert "not JSON" in fleet.views()["wild"]["why_down"]
        before = wild.num_answers
        assert set(ask_all(fleet)) == {(200, "At your service.")}
        assert wild.num_answers == before


def test_an_answer_that_trickles_comes_whole(fleet: Fleet, wild: WildNode) -> None:
    with going(fleet, wild, "drips"):
        found: set[tuple[int, str]] = set()

        def by_both() -> bool:
            found.update(ask_all(fleet))
            return len(found) > 1

        until(by_both)  # it may be on trial still for what it did before
        assert found == {(200, "At your service."), (200, "From the wild.")}


def test_an_answer_without_end_ends_when_its_client_leaves(fleet: Fleet, wild: WildNode) -> None:
    with going(fleet, wild, "endless"):
        streams: list[Stream] = []

        def is_asked() -> bool:
            streams.extend(fleet.stream("ant", f"Hello {i}.").read(2) for i in range(NUM_ASKED))
            return wild.num_open > 0

        until(is_asked)  # it may be on trial still for what it did before
        until(lambda: fleet.gateway.status["open"]["reservations"] == wild.num_open > 0)
        for stream in streams:
            stream.response.close()
        until(lambda: wild.num_open == 0)


def test_a_node_that_comes_and_goes_fails_no_request(fleet: Fleet, wild: WildNode) -> None:
    with going(fleet, wild, "down"):
        stop = threading.Event()

        def flap() -> None:
            while not stop.wait(0.15):
                wild.mode = "down" if wild.mode == "well" else "well"

        flapping = threading.Thread(target=flap)
        flapping.start()
        try:
            for _ in range(4):
                assert {status for status, _ in ask_all(fleet)} == {200}
        finally:
            stop.set()
            flapping.join()


# -- what a node gives to its own fleet ----------------------------------------------------------------


def test_a_node_gives_files_and_lines_to_its_fleet_alone(fleet: Fleet) -> None:
    url = f"http://127.0.0.1:{fleet.ports['east']}"
    bearer = {"authorization": f"Bearer {TOKEN}"}
    (stored,) = call("GET", f"{url}/discovery", headers=bearer)[2]["stored"][:1]
    for path in (f"/models/{stored}/files", "/logs", "/models/ant/limit", "/models/ant/entry"):
        assert call("GET", url + path, headers=bearer)[0] == 200
        assert call("GET", url + path)[0] == 401
        assert call("GET", fleet.url + path)[0] == 404
    told = call("GET", f"{url}/models/{stored}/files", headers=bearer)[2]
    assert all(len(file["sha256"]) == 64 for file in told["files"])


def test_a_model_s_files_come_from_a_node_that_runs(
    fleet: Fleet, store_dir: Path, tmp_path: Path
) -> None:
    with made_up_model(store_dir) as there:
        asked = models_add(fleet, tmp_path)
        assert asked.returncode == 0, asked.stderr
        here = Path(asked.stdout.strip().rpartition(" in ")[2])
        assert here.is_relative_to(tmp_path)
        for name in ("model.safetensors", "tokenizer.json"):
            assert (here / name).read_bytes() == (there / name).read_bytes()


def models_add(fleet: Fleet, folder: Path) -> "CompletedProcess[str]":
    """On another host of the fleet, which has a store of its own."""
    file = folder / "helexa.toml"
    url = f"http://127.0.0.1:{fleet.ports['east']}"
    file.write_text(f'[[nodes]]\nname = "east"\nendpoint = "{url}"\ntoken = "{TOKEN}"\n')
    file.chmod(0o600)
    environ = {"HELEXA_NODE__NAME": "other", "HELEXA_STORE__DIR": str(folder / "store")}
    source = SOURCE.replace("hf:", "node:east/")
    command = ("models", "--config", str(file), "add", source)
    return fleet.nodes["east"].helexa(*command, environ=environ)


def test_what_an_operator_loads_through_a_gateway_is_there_after_a_restart(fleet: Fleet) -> None:
    assert fleet.gateway.ctl("load", "bee", "--node", "east").returncode == 0
    assert fleet.nodes["east"].stop() == 0
    fleet.start_node("east").wait_ready()
    until(lambda: fleet.where("bee") == ["east"])
