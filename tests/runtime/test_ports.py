"""Whose port is it."""

import ipaddress
import os
import socket

import pytest

from llmswap.runtime.ports import answering, foreigner, holder, is_free, is_local, pick_free

HERE = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def listening():
    """Gives a function that listens on an address and returns the port; all is closed at the end."""
    sockets = []

    def listen(address: str, port: int = 0) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family)
        sockets.append(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        server.listen()
        return server.getsockname()[1]

    yield listen
    for server in sockets:
        server.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.0.0.7", "::1", "::"])
def test_port_with_a_listener_on_any_address_is_not_free(listening, address):
    port = listening(address)
    assert not is_free(port)
    assert str(os.getpid()) in holder(port)


def test_bound_but_deaf_port_counts_as_free_until_somebody_listens():
    """SO_REUSEADDR lets a server have it, as servers do after a restart."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert is_free(port)
        bound.listen()
        assert not is_free(port)
    assert is_free(port)
    assert holder(port) is None


def test_picked_port_is_free_and_not_one_to_avoid(monkeypatch):
    first = pick_free(())
    assert is_free(first)
    taken = {pick_free(()) for _ in range(5)}
    assert pick_free(taken) not in taken


def test_no_port_to_give_is_an_error_not_an_endless_search(monkeypatch):
    monkeypatch.setattr("llmswap.runtime.ports.is_free", lambda _: False)
    with pytest.raises(OSError, match="no free port"):
        pick_free(())


def test_most_specific_listener_answers(listening):
    port = listening("0.0.0.0")
    assert [str(found.address) for found in answering(port, HERE)] == ["0.0.0.0"]
    assert answering(port, ipaddress.ip_address("::1")) == []
    other = listening("127.0.0.1")
    assert [str(found.address) for found in answering(other, HERE)] == ["127.0.0.1"]
    assert answering(other, ipaddress.ip_address("127.0.0.2")) == []
    six = listening("::1")
    assert [str(found.address) for found in answering(six, ipaddress.ip_address("::1"))] == ["::1"]


def test_own_listener_is_ours_and_a_foreign_one_is_named(listening):
    port = listening("127.0.0.1")
    assert foreigner(port, HERE, [os.getpid()]) is None
    assert f"pid {os.getpid()} (" in foreigner(port, HERE, [os.getppid()])
    assert f"pid {os.getpid()} (" in foreigner(port, HERE, [])


def test_answer_without_any_listener_in_sight_is_foreign(listening):
    assert "outside" in foreigner(pick_free(()), HERE, [os.getpid()])


def test_unreadable_member_gets_the_benefit_of_the_doubt_unless_the_owner_is_seen(listening, monkeypatch):
    port = listening("127.0.0.1")
    real = __import__("llmswap.runtime.ports", fromlist=["_sockets_of"])._sockets_of

    def hidden(pid: int) -> set[int]:
        if pid == os.getpid():
            raise PermissionError
        return real(pid)

    monkeypatch.setattr("llmswap.runtime.ports._sockets_of", hidden)
    assert foreigner(port, HERE, [os.getpid()]) is None
    assert foreigner(port, HERE, []) == f"a process of user {os.getuid()}"


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False)])
def test_local_addresses_are_told_from_remote_ones(address, expected):
    assert is_local(ipaddress.ip_address(address)) is expected
