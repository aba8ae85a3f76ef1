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


def test_the_environment_overrides_the_file_and_the_program_overrides_both(tmp_path, monkeypatch):
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


def test_a_mistake_in_the_file_is_named(tmp_path, monkeypatch):
    file = tmp_path / "gridlane.toml"
    file.write_text("[sample]\nlimmit = 2\n")
    monkeypatch.setenv("GRIDLANE_CONFIG", str(file))
    with pytest.raises(ValidationError, match="limmit"):
        SampleSettings.load("sample")


def test_what_is_in_force_is_shown_without_secrets():
    shown = describe(SampleSettings.load("sample", backend={"password": "hunter2"}))
    assert shown == {
        "limit": 1,
        "backend": {"url": "file:", "password": "********"},
        "peers": {},
    }
    server = describe(ServerSettings.load("server", ready_file="/x/ready"))
    assert server["ready_file"] == "/x/ready"
    assert server["limits"] == {"unary": 2000, "batch": 64, "stream": 4000}


def test_plaintext_is_served_on_loopback_only(tmp_path: Path):
    for host in ("0.0.0.0", "::", "10.1.2.3", "grid.example.org", "127.evil.example"):
        with pytest.raises(ValidationError, match="not loopback"):
            ServerSettings.load("server", host=host)
    pem = tmp_path / "x.pem"
    assert ServerSettings.load("server", host="0.0.0.0", tls_certificate=pem, tls_key=pem)
    with pytest.raises(ValidationError, match="go together"):
        ServerSettings.load("server", tls_certificate=pem)


def test_loopback_is_told_from_the_rest():
    assert all(is_loopback(h) for h in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(h) for h in ("", "0.0.0.0", "192.168.1.1", "localhost.example"))
