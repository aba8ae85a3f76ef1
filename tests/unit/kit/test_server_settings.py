"""Settings: the strongest source wins, mistakes are named, secrets are masked."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from gridlane_kit.settings import ServerSettings, Settings, describe, is_loopback


class Backend(BaseModel):
    url: str = "file:"
    password: SecretStr = SecretStr("")


class SampleSettings(Settings):
    limit: int = 1
    backend: Backend = Backend()
    peers: dict[str, str] = Field(default_factory=dict)


def test_the_environment_overrides_the_file_and_the_program_overrides_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gridlane.toml"
    file.write_text(
        '[sample]\nlimit = 2\n[sample.backend]\nurl = "from-file"\npassword = "a"\n[other]\nx = 1\n'
    )
    assert SampleSettings.load("sample").limit == 1
    monkeypatch.setenv("GRIDLANE_CONFIG", str(file))
    assert SampleSettings.load("sample").limit == 2
    monkeypatch.setenv("GRIDLANE_SAMPLE_LIMIT", "3")
    monkeypatch.setenv("GRIDLANE_SAMPLE_BACKEND__PASSWORD", "b")
    monkeypatch.setenv("GRIDLANE_SAMPLE_PEERS__TRANSFER", "dns:///host:1")
    loaded = SampleSettings.load("sample")
    assert loaded.limit == 3
    assert loaded.backend.url == "from-file"
    assert loaded.backend.password.get_secret_value() == "b"
    assert loaded.peers == {"transfer": "dns:///host:1"}
    assert SampleSettings.load("sample", limit=4).limit == 4


def test_a_mistake_in_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gridlane.toml"
    file.write_text("[sample]\nlimmit = 2\n")
    monkeypatch.setenv("GRIDLANE_CONFIG", str(file))
    with pytest.raises(ValidationError, match="limmit"):
        SampleSettings.load("sample")


def test_what_is_in_force_is_shown_without_secrets() -> None:
    shown = describe(SampleSettings.load("sample", backend={"password": "hunter2"}))
    assert shown == {
        "limit": 1,
        "backend": {"url": "file:", "password": "********"},
        "peers": {},
    }
    server = describe(ServerSettings.load("server", ready_file="/x/ready"))
    assert server["ready_file"] == "/x/ready"
    assert server["limits"] == {"unary": 2000, "batch": 64, "stream": 4000}


def test_plaintext_is_served_on_loopback_only(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "10.1.2.3", "grid.example.org", "127.evil.example"):
        with pytest.raises(ValidationError, match="not loopback"):
            ServerSettings.load("server", host=host)
    pem = tmp_path / "x.pem"
    ServerSettings.load("server", host="0.0.0.0", tls_certificate=pem, tls_key=pem)
    with pytest.raises(ValidationError, match="go together"):
        ServerSettings.load("server", tls_certificate=pem)


def test_services_have_a_listener_of_their_own_only_with_mutual_tls(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    own = {"tls_certificate": pem, "tls_key": pem}
    assert not ServerSettings.load("server", **own).peer_listener
    for given in ({}, own, {"peer_ca": pem}):
        with pytest.raises(ValidationError, match="peer_listener needs"):
            ServerSettings.load("server", peer_listener=True, **given)
    apart = {"peer_listener": True, "peer_ca": pem, **own}
    assert ServerSettings.load("server", port=50053, **apart).peers_at == 50153
    assert ServerSettings.load("server", port=0, **apart).peers_at == 0
    assert ServerSettings.load("server", port=50053, peer_port=7, **apart).peers_at == 7


def test_loopback_is_told_from_the_rest() -> None:
    assert all(is_loopback(h) for h in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(h) for h in ("", "0.0.0.0", "192.168.1.1", "localhost.example"))


def test_a_service_s_own_table_counts_more_than_the_one_of_all_and_less_than_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gridlane.toml"
    file.write_text(
        "[server]\nport = 1\ngrace_s = 3\n[server.limits]\nbatch = 5\n"
        "[server.transfer]\nport = 2\n[server.transfer.limits]\nunary = 7\n"
        "[server.workload]\nport = 4\n"
    )
    monkeypatch.setenv("GRIDLANE_CONFIG", str(file))
    transfer = ServerSettings.load_for("transfer")
    assert (transfer.port, transfer.grace_s) == (2, 3)
    assert (transfer.limits.unary, transfer.limits.batch) == (7, 5)
    assert ServerSettings.load_for("gateway").port == 1
    assert ServerSettings.load_for(None).port == 1
    monkeypatch.setenv("GRIDLANE_SERVER_PORT", "8")
    assert ServerSettings.load_for("transfer").port == 8
    assert ServerSettings.load_for("transfer", port=9).port == 9


def test_a_mistake_in_a_service_s_own_table_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gridlane.toml"
    file.write_text("[server.transfer]\nprot = 2\n")
    monkeypatch.setenv("GRIDLANE_CONFIG", str(file))
    with pytest.raises(ValidationError, match="prot"):
        ServerSettings.load_for("transfer")
