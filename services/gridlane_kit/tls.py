"""TLS: the credentials of servers and of peers, made from files that may change.

Responsible for reading certificates, keys and roots (PEM) and for taking up new ones without a
restart: a server asks for every new connection whether the files changed; who opens channels asks
`ClientTls` now and then. A set of files that does not fit together (a certificate that is there
before its key) is not taken up; the one in force stays. Not for who may call (`assertions`).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

_log = logging.getLogger(__name__)
Stamp = tuple[tuple[int, int, int], ...]


class CertificateError(ValueError):
    """Certificates or keys are not usable; the message names the file, and what was expected."""


class _Watched:
    """Some files, and whether they changed since they were read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stamp: Stamp = ()

    def changed(self) -> bool:
        """Whether there are others than at the last time that this was asked.

        Raises:
            OSError: one is not there, for example because it is just being replaced.
        """
        # The inode too: files are replaced whole, and a link may be turned to another folder.
        stats = [path.stat() for path in self._paths]
        stamp = tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in stats)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        return True


class ServerTls:
    """What a server proves itself with, and whom it asks to do so.

    Parameters:
        certificate: the server's chain (PEM), its own certificate first.
        key: its private key (PEM).
        client_roots: the roots (PEM) of clients that must show a certificate; None asks nobody.

    Raises:
        CertificateError: the files are not usable as they are at the start.
    """

    def __init__(self, certificate: Path, key: Path, client_roots: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_roots = client_roots
        paths = [p for p in (certificate, key, client_roots) if p is not None]
        self._files = _Watched(paths)
        try:
            self._files.changed()
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._newer,  # type: ignore[arg-type] # None for no change, as gRPC documents it
            self._client_roots is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Answers, for each new connection and on a thread of gRPC's, what is new; None for
        nothing."""
        try:
            if not self._files.changed():
                return None
            newer = self._read()
        except (OSError, CertificateError) as error:
            _log.warning("new certificates are not usable, the old ones stay: %s", error)
            return None
        _log.info("took up new certificates: %s", self._certificate)
        return newer

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = read_pair(self._certificate, self._key)
        roots = None if self._client_roots is None else read_roots(self._client_roots)
        return grpc.ssl_server_certificate_configuration([pair], roots)


class ClientTls:
    """What a client believes servers by, and what it shows where it is asked for a certificate.

    Parameters:
        roots: the roots (PEM) of the servers' certificates.
        certificate, key: the client's own (PEM), for servers that ask; both or none.

    Raises:
        CertificateError: the files are not usable as they are at the start.
    """

    def __init__(
        self, roots: Path, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        self._roots = roots
        self._own = (certificate, key)
        self._files = _Watched([p for p in (roots, certificate, key) if p is not None])
        try:
            self._files.changed()
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        self._credentials = self._read()

    def current(self) -> grpc.ChannelCredentials:
        """Returns the credentials made of the files as they are now: another object than before
        when they changed, so that channels made with the old one should be replaced."""
        try:
            if self._files.changed():
                self._credentials = self._read()
                _log.info("took up new certificates: %s", self._roots)
        except (OSError, CertificateError) as error:
            _log.warning("new certificates are not usable, the old ones stay: %s", error)
        return self._credentials

    def _read(self) -> grpc.ChannelCredentials:
        certificate, key = self._own
        if certificate is None or key is None:
            return grpc.ssl_channel_credentials(read_roots(self._roots))
        key_pem, chain_pem = read_pair(certificate, key)
        return grpc.ssl_channel_credentials(read_roots(self._roots), key_pem, chain_pem)


def read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Reads a private key and its certificate chain (PEM), in gRPC's order.

    Raises:
        CertificateError: they are not there, are something else, or do not belong together.
    """
    chain_pem, key_pem = _bytes(certificate), _bytes(key)
    try:
        certified = x509.load_pem_x509_certificates(chain_pem)[0].public_key()
    except ValueError:
        raise CertificateError(f"{certificate}: expected a certificate chain in PEM") from None
    try:
        owned = load_pem_private_key(key_pem, password=None).public_key()
    except (TypeError, ValueError):
        raise CertificateError(f"{key}: expected a private key in PEM, not encrypted") from None
    if _spki(certified) != _spki(owned):
        raise CertificateError(f"{certificate}: is not the certificate of {key}")
    return key_pem, chain_pem


def read_roots(path: Path) -> bytes:
    """Reads root certificates (PEM).

    Raises:
        CertificateError: they are not there, or are something else.
    """
    pem = _bytes(path)
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateError(f"{path}: expected root certificates in PEM") from None
    return pem


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None


def _spki(key: object) -> bytes:
    spki: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return spki
