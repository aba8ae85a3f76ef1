"""Two wheels, each with all it needs and nothing that is another project's."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import EmbeddedServer

Run = Callable[..., subprocess.CompletedProcess[str]]
CLIENT_NEEDS = {"gridlane", "grpcio", "protobuf", "googleapis-common-protos", "typing_extensions"}
IMPORT_ALL = """
import importlib, pkgutil, sys
import gridlane
optional = ("gridlane.cli",)
for module in pkgutil.walk_packages(gridlane.__path__, "gridlane."):
    if not module.name.startswith(optional):
        importlib.import_module(module.name)
foreign = {"buf", "google.api.resource_pb2", "validate"} & set(sys.modules)
assert not foreign, foreign
print(len(sys.modules))
"""
RUN_A_JOB = """
import sys
import gridlane
from gridlane.workload.v1.job_pb2 import JobState
with gridlane.Client(sys.argv[1], token_file=sys.argv[2]) as client:
    task = client.tasks.wait(client.tasks.submit(gridlane.new_job("echo from the wheel")).name)
    print(JobState.Name(task.job.state), b"".join(client.jobs.log(task.job.name)))
"""


@pytest.fixture(scope="module")
def wheels(root: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built without isolation: the environment has the build backend."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (root / "clients/python", root):
        result = run(source, "hatchling", "build", "--target", "wheel", "--directory", folder)
        assert result.returncode == 0, result.stdout
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


def files(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def top_level(wheel: Path) -> set[str]:
    return {name.partition("/")[0] for name in files(wheel)}


def make_environment(folder: Path, *requirements: str) -> Path:
    """An environment with nothing but what is asked for; returns the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", *requirements], check=True)
    subprocess.run([*pip, "check"], check=True)
    return folder / "bin"


def installed(programs: Path) -> set[str]:
    listed = subprocess.run(
        [programs / "python", "-m", "pip", "list", "--format=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {package["name"] for package in json.loads(listed.stdout)} - {"pip", "setuptools"}


def test_there_are_two_wheels(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"gridlane", "gridlane_services"}


def test_the_client_ships_its_own_package_alone(wheels: dict[str, Path]) -> None:
    assert top_level(wheels["gridlane"]) == {"gridlane", "gridlane-0.1.0.dist-info"}


def test_the_client_is_typed(wheels: dict[str, Path], root: Path) -> None:
    shipped = files(wheels["gridlane"])
    assert "gridlane/py.typed" in shipped
    source = root / "clients/python"
    stubs = {path.relative_to(source).as_posix() for path in source.glob("gridlane/**/*_pb2*.pyi")}
    assert stubs
    assert stubs <= shipped


def test_the_services_ship_every_server_package(wheels: dict[str, Path], root: Path) -> None:
    services = {path.name for path in (root / "services").glob("gridlane_*")}
    assert services
    wheel = wheels["gridlane_services"]
    assert top_level(wheel) == services | {"gridlane_services-0.1.0.dist-info"}


def test_both_wheels_carry_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        assert any(name.endswith("licenses/LICENSE") for name in files(wheel))


@pytest.fixture(scope="module")
def client_alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with nothing but the client's wheel."""
    return make_environment(tmp_path_factory.mktemp("client"), str(wheels["gridlane"]))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_client_installs_into_an_empty_environment(client_alone: Path, tmp_path: Path) -> None:
    assert installed(client_alone) == CLIENT_NEEDS
    subprocess.run([client_alone / "python", "-c", IMPORT_ALL], check=True, cwd=tmp_path)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_server_from_the_wheels_serves_the_client_of_another_process(
    wheels: dict[str, Path], client_alone: Path, tmp_path: Path
) -> None:
    programs = make_environment(tmp_path / "both", *(str(path) for path in wheels.values()))
    subprocess.run([programs / "gridlane", "--help"], check=True, cwd=tmp_path)
    server = EmbeddedServer(tmp_path / "server", command=programs / "gridlane-server")
    try:
        server.start()
        done = subprocess.run(
            [client_alone / "python", "-c", RUN_A_JOB, server.address, server.token_file],
            check=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    finally:
        server.close()
    assert done.stdout == "JOB_STATE_DONE b'from the wheel\\n'\n"
