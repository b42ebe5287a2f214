"""Agents of several nodes find each other, and each learns how another one ended."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from platform_assets.launch import peers
from platform_assets.launch.peers import Misplaced, Peers, Place, find
from platform_assets.training.steps.process import EXIT_PREEMPTED, PeerLost
from tests.doubles.shared_training import free_port, wait


@contextmanager
def joined(nodes: int) -> Iterator[list[Peers]]:
    port = free_port()
    agents = [Peers(Place(nodes=nodes, rank=rank, port=port)) for rank in range(nodes)]
    threads = [threading.Thread(target=agent.join, args=(60.0,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield agents
    for agent in reversed(agents):
        agent.leave(0, linger_s=0.0)


@pytest.fixture(autouse=True)
def beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BEAT_S", 0.02)
    monkeypatch.setattr(peers, "NOTICE_S", 0.1)


@pytest.mark.parametrize(
    ("codes", "is_asked"), [({2: EXIT_PREEMPTED}, True), ({1: 137}, False), ({1: 1, 2: EXIT_PREEMPTED}, False)]
)
def test_all_learn_how_one_ended(codes: dict[int, int], is_asked: bool) -> None:
    with joined(3) as agents:
        assert not any(agent.is_lost for agent in agents)
        agents[0]._over.set()
        agents[0]._thread.join()
        for rank, code in codes.items():
            agents[rank].leave(code, linger_s=0.0)
        agents[0]._over.clear()
        agents[0]._watch()
        assert agents[0].is_asked is is_asked
        rank, code = min(codes.items())
        assert agents[0].ending == f"node {rank} of 3 ended with exit code {code}"
        wait(lambda: agents[0].is_lost)


def test_one_that_finished_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SILENT_S", 0.5)
    with joined(2) as agents:
        agents[1].leave(0, linger_s=0.0)
        agents[0]._thread.join(2.0)
        assert not agents[0].is_lost


def test_one_that_is_silent_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SILENT_S", 0.5)
    with joined(2) as agents:
        agents[1]._over.set()
        wait(lambda: agents[0].is_lost)
        assert agents[0].ending == "node 1 of 2 has been silent for 0.5 s"
        assert not agents[0].is_asked


def test_a_name_without_an_address_and_a_node_that_does_not_come_end_in_a_sentence() -> None:
    with pytest.raises(PeerLost, match=r"node 1 of 2 found no address of nowhere\.invalid within 0 s \(.+\); expected"):
        find(2, 1, "nowhere.invalid", 29400, join_s=0.0)
    port = free_port()
    place = find(2, 1, "localhost", port, join_s=0.0)
    assert place == Place(nodes=2, rank=1, port=port)
    with pytest.raises(PeerLost, match=rf"node 1 of 2 waited 0 s for the first one at 127\.0\.0\.1:{port}"):
        Peers(place).join(0.0)
    first = Peers(Place(nodes=2, rank=0, port=port))
    with pytest.raises(PeerLost, match="node 0 of 2 waited 0 s for node 1; expected all nodes"):
        first.join(0.0)
    first.leave(1, linger_s=0.0)


@pytest.mark.parametrize(("nodes", "rank", "host", "port"), [(2, 2, "a", 1), (2, 0, "", 1), (2, 0, "a", 0)])
def test_numbers_that_contradict_each_other_are_refused(nodes: int, rank: int, host: str, port: int) -> None:
    with pytest.raises(Misplaced, match=rf"PET_NNODES is {nodes}, PET_NODE_RANK {rank}, PET_MASTER_ADDR '{host}' and"):
        find(nodes, rank, host, port, join_s=0.0)


def test_an_address_that_is_not_ones_own_and_a_port_that_is_taken_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Place(nodes=2, address="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(Misplaced, match=r"node 0 cannot listen at 127\.0\.0\.1:\d+ \(Address already in use\)"):
            Peers(taken).join(0.0)
    with pytest.raises(Misplaced, match=r"cannot listen at 192\.0\.2\.1:29400 \(Cannot assign requested address\)"):
        Peers(Place(nodes=2, address="192.0.2.1", port=29400)).join(0.0)


def test_the_device_is_that_of_the_route_to_the_first_node() -> None:
    assert Place(nodes=2, port=29400).device() == "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine without a network
        own = route.getsockname()[0]
    assert Place(nodes=2, address=own, port=29400).device() != "lo"
