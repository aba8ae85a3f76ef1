"""The embedded server: all services in one process, on one port, on one data directory.

Responsible for which rooms there are, in the order in which they start. How a room is made is told
in `rooms`, what it does is its own; how they are run is the kit's (`gridlane_kit.server`).
"""

from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.tokens import open_signer, verifier_of
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.server import ReadyInfo, Server, ServiceRoom
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.tokens import TokenSigner
from gridlane_server.configuration import Configuration
from gridlane_server.issuers import TokenKeys, outside_issuers
from gridlane_server.process import Process
from gridlane_server.rooms import Rooms
from gridlane_transfer.settings import TransferSettings, embedded_storage_elements
from gridlane_workload.backends.embedded.account import check_bind


def embedded_server(configuration: Configuration, data: DataDirectory) -> Server:
    """Assembles the embedded server; `start` brings it up.

    Parameters:
        data: the directory, held by this process.

    Raises:
        UnsafeBindError: payloads would run as the server's user while the port is open to others.
        SigningKeyError, OSError: the signing key cannot be used or made.
        IssuerError: an outside issuer is not usable.
    """
    check_bind(configuration.server.host, configuration.workload)
    settings = configuration.authorization
    signer = open_signer(data.keys, settings.issuer, settings.audience)
    return _Assembly(configuration, data, signer).server()


class _Assembly:
    """The rooms of the embedded server."""

    def __init__(
        self, configuration: Configuration, data: DataDirectory, signer: TokenSigner
    ) -> None:
        self._configuration = configuration
        self._data = data
        self._signer = signer
        self._server: Server | None = None
        self._issuers = outside_issuers(configuration.authorization)
        verifier = verifier_of(signer, self._issuers)
        self._process = Process(configuration.server, "gridlane", verifier, self._issuers)

    def server(self) -> Server:
        """Makes the rooms, in the order of their start, and the server that runs them."""
        data, pipeline = self._data, self._process.pipeline
        make = Rooms(
            self._configuration,
            self._process,
            peers=pipeline.peers_for,
            database_url=lambda service: sqlite_url(data.database_file(service)),
            migrate=True,
        )
        rooms: list[ServiceRoom] = [
            TokenKeys(self._issuers),
            make.authorization(self._signer, KeyFiles.in_folder(data.keys), data.token_file),
            make.transfer(self._transfer_settings()),
            make.workload(data.jobs, self._address),
            make.reporting(),
            make.gateway(),
        ]
        ready = ReadyInfo(
            data_dir=data.root, token_file=data.token_file, server_file=data.server_file
        )
        self._server = Server(self._configuration.server, rooms, pipeline, ready)
        return self._server

    def _transfer_settings(self) -> TransferSettings:
        settings = self._configuration.transfer
        if settings.storage_elements:
            return settings
        elements = embedded_storage_elements(self._data.storage, self._data.jobs)
        return settings.with_storage_elements(elements)

    def _address(self) -> str:
        """Returns where this process serves; payloads are told, once it does."""
        if self._server is None:
            raise RuntimeError("the server is not assembled yet")
        return self._server.address
