"""What the compose files must hold so that nobody gets in, and nobody out: threats T16 and T17, point by point.

What the engine makes of it is looked at in tests/real_stack.
"""

import json
import re

import pytest

from tests.deploy.files import DEPLOY, MAIN, OVERRIDES, compose, own_services

SERVICES = own_services()
DEFAULT = {"llmswap", "prometheus", "alertmanager", "node-exporter", "tempo", "grafana"}
PUBLISHED = {"llmswap", "grafana", "locust"}
SOCKET_PROXIES = {"docker-proxy", "docker-logs"}  # each in a profile or a file that is off by default
BUILT = {"llmswap", "locust"}

every_service = pytest.mark.parametrize("name", SERVICES)


def service(name: str) -> dict:
    return SERVICES[name][1]


def test_the_default_stack_is_what_was_promised_and_the_rest_is_off():
    on = {name for name, (path, service) in SERVICES.items() if path == MAIN and not service.get("profiles")}
    assert on == DEFAULT


@every_service
def test_an_image_is_pinned(name):
    if name in BUILT:
        assert service(name)["build"]["dockerfile"] == "deploy/Dockerfile"
        return
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.]+)?", service(name)["image"])


@every_service
def test_it_runs_as_somebody_with_a_number_other_than_roots(name):
    assert re.fullmatch(r"[1-9]\d*:(\d+|\$\{DOCKER_GID\b.*\})", service(name)["user"])


@every_service
def test_it_writes_nowhere_but_to_its_volumes_and_a_bounded_tmp(name):
    assert service(name)["read_only"] is True
    (tmp,) = service(name)["tmpfs"]
    assert re.fullmatch(r"/tmp:size=\d+m,mode=1777", tmp)


@every_service
def test_it_has_no_capability_and_gains_none(name):
    assert service(name)["cap_drop"] == ["ALL"]
    assert service(name)["security_opt"] == ["no-new-privileges:true"]
    assert not service(name).keys() & {"cap_add", "privileged", "userns_mode", "devices", "device_cgroup_rules"}


@every_service
def test_it_shares_no_namespace_with_the_host(name):
    assert not service(name).keys() & {"network_mode", "pid", "ipc", "uts", "cgroup"}


@every_service
def test_what_it_takes_is_bounded(name):
    assert 0 < service(name)["pids_limit"] <= 4096
    assert re.fullmatch(r"\d+[mg]|\$\{LLMSWAP_MEMORY:-\d+g\}", str(service(name)["mem_limit"]))
    assert "cpus" in service(name)
    assert service(name)["logging"]["options"].keys() == {"max-size", "max-file"}


@every_service
def test_it_is_restarted_and_its_health_is_known(name):
    assert service(name)["restart"] == "always", "Docker leaves others down when the engine itself was killed"
    check = service(name)["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check.keys() >= {"interval", "timeout", "retries", "start_period"}


@every_service
def test_only_what_people_use_is_published_and_on_loopback_only(name):
    ports = service(name).get("ports", [])
    assert bool(ports) == (name in PUBLISHED)
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)
    assert "expose" not in service(name)


@every_service
def test_what_is_not_published_stands_on_internal_networks_only(name):
    path = SERVICES[name][0]
    networks = compose()["networks"] | (compose(path).get("networks") or {})
    assert service(name)["networks"], "else it would be on compose's default network"
    if name not in PUBLISHED:
        assert [network for network in service(name)["networks"] if not networks[network].get("internal")] == []


@every_service
def test_the_engines_socket_is_seen_by_a_proxy_only_which_is_off_by_default(name):
    path, content = SERVICES[name]
    if name not in SOCKET_PROXIES:
        assert "docker.sock" not in json.dumps(content)
        return
    assert content.get("profiles") or path != MAIN
    assert content["image"].startswith("wollomatic/socket-proxy:")
    words = content["command"]
    assert [word for word in words if word.startswith("-allowfrom=")] in (["-allowfrom=llmswap"], ["-allowfrom=alloy"])
    for word in words:
        if re.match(r"-allow[A-Z]+=", word):
            re.compile(word.partition("=")[2])
            assert ".*" not in word, "everything would be let through"


def test_the_proxy_for_logs_lets_nothing_be_changed():
    words = service("docker-logs")["command"]
    assert {word.partition("=")[0] for word in words if re.match(r"-allow[A-Z]", word)} == {"-allowHEAD", "-allowGET"}


@every_service
def test_no_secret_stands_in_the_environment(name):
    environment = service(name).get("environment", {})
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
    assert [key for key in environment if secret.search(key) and not key.endswith("__FILE")] == []


def test_no_override_opens_what_the_main_file_closes():
    kept = {"restart", "read_only", "cap_drop", "security_opt", "tmpfs", "user", "ports", "pids_limit", "healthcheck"}
    for path in OVERRIDES:
        for name, content in compose(path)["services"].items():
            if name not in compose()["services"]:
                continue
            assert content.keys() & (kept | {"privileged", "cap_add", "ipc", "network_mode"}) == set(), path.name
            assert "docker.sock" not in json.dumps(content), path.name


def test_grafana_has_no_known_password_and_lets_in_nobody_without_one():
    environment = service("grafana")["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/var/lib/grafana/admin_password"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    start = (DEPLOY / "grafana-start.sh").read_text()
    assert "/dev/urandom" in start
    assert "umask 077" in start


def test_nothing_calls_home():
    environment = service("grafana")["environment"]
    for key in ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES"):
        assert environment[f"GF_ANALYTICS_{key}"] == "false"
    assert compose(DEPLOY / "tempo.yaml")["usage_report"]["reporting_enabled"] is False
    assert compose(DEPLOY / "loki.yaml")["analytics"]["reporting_enabled"] is False
    assert "--disable-reporting" in service("alloy")["command"]


def test_prometheus_cannot_be_told_to_do_anything_over_http():
    words = " ".join(service("prometheus")["command"])
    assert not re.search(r"--web\.enable-(lifecycle|admin-api|remote-write-receiver)", words)
    assert "--enable-feature=exemplar-storage" in words


def test_what_is_kept_is_bounded():
    words = " ".join(service("prometheus")["command"])
    assert re.search(r"retention\.time=\$\{\w+:-30d\}.*retention\.size=\$\{\w+:-5GB\}", words)
    assert compose(DEPLOY / "tempo.yaml")["backend_worker"]["compaction"]["block_retention"] == "168h"
    assert compose(DEPLOY / "loki.yaml")["limits_config"]["retention_period"] == "168h"


def test_every_volume_has_a_name_and_a_user():
    used = {
        word.partition(":")[0]
        for content in compose()["services"].values()
        for word in content.get("volumes", [])
        if re.match(r"[a-z][\w-]*:", word)
    }
    assert used | {"models"} == set(compose()["volumes"])


def test_who_needs_whom_waits_for_its_health_and_llmswap_waits_for_nobody():
    assert "depends_on" not in service("llmswap")
    for _, content in SERVICES.values():
        for needed, how in content.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in service(needed)


def test_no_gpu_is_asked_for_but_by_the_gpus_overrides():
    wants = re.compile(r"nvidia|/dev/kfd|/dev/dri|\bgpus?\b")
    for name, content in compose()["services"].items():
        assert not wants.search(json.dumps(content)), name
    (device,) = compose(DEPLOY / "compose.gpu.yml")["services"]["llmswap"]["deploy"]["resources"]["reservations"][
        "devices"
    ]
    assert device["driver"] == "nvidia"
    assert {"gpu", "utility"} <= set(device["capabilities"])
    assert compose(DEPLOY / "compose.amd.yml")["services"]["llmswap"]["devices"] == ["/dev/kfd", "/dev/dri"]


def test_no_key_is_used_that_old_or_new_composes_ignore():
    """`gpus:` is ignored by compose 2.26 without a word, and with it the GPU."""
    for path in (MAIN, *OVERRIDES):
        assert not compose(path).keys() & {"version", "models"}
        for content in compose(path)["services"].values():
            assert "gpus" not in content


def test_every_variable_has_a_line_in_the_readme():
    wanted = {
        name
        for path in (MAIN, *OVERRIDES)
        for name in re.findall(r"\$\{([A-Z_]+)", re.sub(r"(?m)#.*", "", path.read_text()))
    }
    assert {"LLMSWAP_CONFIG", "DOCKER_GID"} <= wanted
    documented = (DEPLOY / "README.md").read_text().partition("## Settings")[2].partition("## Your own")[0]
    assert {name for name in wanted if f"`{name}`" not in documented} == set()
