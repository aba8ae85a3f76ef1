"""An issuer of tokens for tests: a real HTTP or HTTPS server on loopback that follows the WLCG
token profile, and the ways in which a real one fails.

Responsible for discovery, JWKS with rotation, tokens by client credentials with the scopes that are
asked for, their refresh; for tokens with any claims, signed as the issuer signs; and for faults.
Knows nothing of Gridlane: what it makes is made with `joserfc` alone.
"""

import base64
import json
import secrets
import ssl
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, RSAKey

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks"
TOKEN = "/token"
LIFETIME_S = 600


class Fault(Enum):
    """What is wrong with the answers to GET."""

    HANGS = auto()
    DRIPS = auto()
    STATUS_500 = auto()
    GARBAGE = auto()
    HUGE = auto()
    ENDLESS = auto()
    COMPRESSED = auto()
    REDIRECT_LOOP = auto()
    REDIRECT_TO_PLAIN = auto()
    REDIRECT_TO_FILE = auto()
    REDIRECT = auto()
    """To where `TokenIssuer.redirect` says."""
    A_LIST = auto()
    OF_ANOTHER = auto()
    NO_KEYS = auto()
    CUT_OFF = auto()


class Client:
    """A client that is registered with the issuer: what it may ask for."""

    def __init__(self, secret: str, scopes: Collection[str], groups: Collection[str] = ()) -> None:
        self.secret = secret
        self.scopes = frozenset(scopes)
        self.groups = list(groups)


class TokenIssuer:
    """The issuer; serves from its construction until `close`.

    Parameters:
        certificate: chain and key (PEM) of an HTTPS server; None serves HTTP.
        algorithm: "ES256" or "RS256".
        audience: of tokens that ask for none.
    """

    def __init__(
        self,
        certificate: tuple[Path, Path] | None = None,
        *,
        algorithm: str = "ES256",
        audience: str = "gridlane",
    ) -> None:
        self.algorithm = algorithm
        self.audience = audience
        self.clients: dict[str, Client] = {}
        self.fault: Fault | None = None
        self.redirect = ""
        self.faulty_paths: Collection[str] = (DISCOVERY, JWKS)
        self.seen: Counter[str] = Counter()
        self.closing = threading.Event()
        self._refresh: dict[str, tuple[str, frozenset[str]]] = {}
        self._keys = [self._new_key()]
        self._certificate = certificate
        self._server = self._serve(0)
        self.port: int = self._server.server_port

    @property
    def url(self) -> str:
        """Its name: `iss`."""
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/issuer"

    @property
    def key(self) -> ECKey | RSAKey:
        """The key that it signs with now."""
        return self._keys[0]

    def rotate(self, *, keep: bool = True) -> None:
        """Signs with a new key from now on; publishes the old ones still, or not."""
        self._keys = [self._new_key(), *(self._keys if keep else [])]

    def retire(self) -> None:
        """Publishes the present key alone."""
        self._keys = self._keys[:1]

    def jwks(self) -> dict[str, Any]:
        """What it publishes."""
        return {"keys": [key.as_dict(private=False) for key in self._keys]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims for the user "ada", but for these changes; None leaves one out."""
        now = int(time.time())
        good = {
            "wlcg.ver": "1.0",
            "iss": self.url,
            "sub": "ada",
            "aud": self.audience,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_hex(8),
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def sign(self, **changes: Any) -> str:
        """A token with good claims, but for these changes."""
        return sign(self.claims(**changes), self.key, self.algorithm)

    def go_away(self) -> None:
        """Refuses connections, until `come_back`."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def come_back(self) -> None:
        """Serves again, where it did."""
        self.closing.clear()
        self._server = self._serve(self.port)

    def close(self) -> None:
        """Ends it."""
        if not self.closing.is_set():
            self.go_away()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_key(self) -> ECKey | RSAKey:
        named: KeyParameters = {"kid": secrets.token_hex(4), "use": "sig", "alg": self.algorithm}
        if self.algorithm == "RS256":
            return RSAKey.generate_key(2048, named)
        return ECKey.generate_key("P-256", named)

    def _serve(self, port: int) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"issuer": self})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        server.block_on_close = False
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def grant(self, form: Mapping[str, str], client_id: str, secret: str) -> dict[str, Any]:
        """Answers a request for a token (RFC 6749), or raises PermissionError with its error."""
        client = self.clients.get(client_id)
        if client is None or client.secret != secret:
            raise PermissionError("invalid_client")
        kind = form.get("grant_type")
        if kind == "client_credentials":
            allowed = client.scopes
        elif kind == "refresh_token":
            owner, allowed = self._refresh.pop(form.get("refresh_token", ""), ("", frozenset()))
            if owner != client_id:
                raise PermissionError("invalid_grant")
        else:
            raise PermissionError("unsupported_grant_type")
        asked = frozenset(form.get("scope", "").split()) or allowed
        if not asked <= allowed:
            raise PermissionError("invalid_scope")
        token = self.sign(
            sub=client_id,
            aud=form.get("audience", self.audience),
            scope=" ".join(sorted(asked)),
            **{"wlcg.groups": client.groups or None},
        )
        refresh = secrets.token_urlsafe(16)
        self._refresh[refresh] = (client_id, asked)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            "scope": " ".join(sorted(asked)),
            "refresh_token": refresh,
        }


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    issuer: TokenIssuer

    def do_GET(self) -> None:
        path = self.path.removeprefix("/issuer")
        self.issuer.seen[path] += 1
        if path in self.issuer.faulty_paths and self.issuer.fault is not None:
            with suppress(OSError):
                self._fail(self.issuer.fault)
        elif path == DISCOVERY:
            self._answer(self._discovery())
        elif path == JWKS:
            self._answer(self.issuer.jwks())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        path = self.path.removeprefix("/issuer")
        self.issuer.seen[path] += 1
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(raw).items()}
        header = self.headers.get("Authorization", "").removeprefix("Basic ")
        client_id, _, secret = base64.b64decode(header).decode().partition(":")
        try:
            self._answer(self.issuer.grant(form, client_id, secret))
        except PermissionError as error:
            self._answer({"error": str(error)}, 401 if "client" in str(error) else 400)

    def log_message(self, *_: object) -> None:
        """Tests tell what they need."""

    def _discovery(self) -> dict[str, Any]:
        url = self.issuer.url
        return {
            "issuer": url,
            "jwks_uri": url + JWKS,
            "token_endpoint": url + TOKEN,
            "grant_types_supported": ["client_credentials", "refresh_token"],
        }

    def _answer(self, content: object, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status)

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, fault: Fault) -> None:
        if fault is Fault.REDIRECT:
            self._send(b"", 302, Location=self.issuer.redirect)
        elif fault in _REDIRECTS:
            self._send(b"", 302, Location=_REDIRECTS[fault] or self.path)
        elif fault in _DOCUMENTS:
            self._answer({**self._discovery(), **_DOCUMENTS[fault]})
        elif fault in (Fault.DRIPS, Fault.ENDLESS):
            self._go_on(fault)
        elif fault is Fault.HANGS:
            self.issuer.closing.wait(30)
        elif fault is Fault.CUT_OFF:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"keys"')
        else:
            body, status, headers = _BODIES[fault]
            self._send(body, status, **headers)

    def _go_on(self, fault: Fault) -> None:
        self.send_response(200)
        self.end_headers()
        pause_s = 0.2 if fault is Fault.DRIPS else 0.0
        while not self.issuer.closing.wait(pause_s):
            self.wfile.write(b" " if fault is Fault.DRIPS else b" " * 65_536)


_REDIRECTS = {
    Fault.REDIRECT_LOOP: "",
    Fault.REDIRECT_TO_PLAIN: "http://gridlane.invalid/jwks",
    Fault.REDIRECT_TO_FILE: "file:///etc/hostname",
}
_DOCUMENTS: Mapping[Fault, Mapping[str, Any]] = {
    Fault.OF_ANOTHER: {"issuer": "https://another.example", "keys": "none"},
    Fault.NO_KEYS: {"keys": []},
}
_BODIES: Mapping[Fault, tuple[bytes, int, Mapping[str, str]]] = {
    Fault.STATUS_500: (b"{}", 500, {}),
    Fault.GARBAGE: (b"<html>\xff\xfe not what you think", 200, {}),
    Fault.HUGE: (b" " * 3_000_000 + b"{}", 200, {}),
    Fault.COMPRESSED: (b"\x1f\x8b", 200, {"Content_Encoding": "gzip"}),
    Fault.A_LIST: (b"[1]", 200, {}),
}


def sign(
    claims: Mapping[str, Any], key: ECKey | RSAKey, algorithm: str = "ES256", **header: Any
) -> str:
    """A token with these claims, whatever they are."""
    full = {"alg": algorithm, "kid": key.kid, **header}
    present = {name: value for name, value in full.items() if value is not None}
    return jwt.encode(present, dict(claims), key, algorithms=[algorithm])
