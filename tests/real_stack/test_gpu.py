"""The override for NVIDIA, under an engine that believes to have GPUs: it starts, and asks for what it must."""

import pytest

from tests.real_stack.clone import Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_make_up_finds_a_gpu_and_starts_with_it(stack: Stack, tmp_path):
    """The engine runs a hook that does nothing in place of NVIDIA's, so the container gets a reservation and no GPU."""
    (tmp_path / "nvidiactl").touch()
    settings = stack.root / ".env"
    before = settings.read_text()
    settings.unlink()
    try:
        stack.environ["LLMSWAP_DEV"] = str(tmp_path)
        assert "note:" not in stack.make("up")
        assert "COMPOSE_FILE=docker-compose.yml:deploy/compose.gpu.yml\n" in settings.read_text()
        container = stack.container("llmswap")
        assert container["State"]["Health"]["Status"] == "healthy"
        (wanted,) = container["HostConfig"]["DeviceRequests"]
        assert (wanted["Driver"], wanted["Count"]) == ("nvidia", -1)
        assert {"gpu", "utility", "compute"} <= set(wanted["Capabilities"][0])
        assert container["HostConfig"]["ShmSize"] == 8 << 30
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
    finally:
        del stack.environ["LLMSWAP_DEV"]
        settings.write_text(before)
        stack.up()
    assert not stack.container("llmswap")["HostConfig"]["DeviceRequests"]
