"""Hostile tokens: what an attacker would send, each with the name of its trick.

Every one is made from a `Forge`: an issuer that is believed, with two ES256 keys, an RS256 key and
some that must not count. But for its trick a token is good, so that each test can fail.
"""

import base64
import hmac
import json
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe, jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

ALGORITHMS = jws.JWSRegistry.algorithms


class Forge:
    """What an attacker knows, and the keys of the issuer that is attacked."""

    def __init__(self, issuer: str, audience: str, claims: Mapping[str, Any]) -> None:
        self.issuer = issuer
        self.audience = audience
        self.key = ec_key("key-1")
        self.other = ec_key("key-2")
        self.rsa = RSAKey.generate_key(2048, {"kid": "key-3"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is short is the point
            self.short = RSAKey.generate_key(1024, {"kid": "short"})
        self.curve = ECKey.generate_key("P-384", {"kid": "curve"})
        self.for_encryption = ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"})
        self.published = ec_key("published")
        self.retired = ec_key("retired")
        self.shared = OctKey.generate_key(256, {"kid": "shared"})
        self.mine = ec_key("mine")
        self._more = claims

    def jwks(self) -> dict[str, Any]:
        """What the issuer publishes."""
        good = (self.key, self.other, self.rsa, self.short, self.curve, self.for_encryption)
        return {
            "keys": [
                *(key.as_dict(private=False) for key in good),
                self.published.as_dict(private=True),
                self.shared.as_dict(private=True),
                {**self.retired.as_dict(private=False), "exp": int(time.time()) - 1},
                {"kty": "unheard of", "kid": "key-1"},
                {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AA", "y": "AA"},
            ]
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims but for these changes; None leaves one out."""
        now = int(time.time())
        good = {
            "wlcg.ver": "1.0",
            "iss": self.issuer,
            "sub": "ada",
            "aud": self.audience,
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "jti": "1",
            **self._more,
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, /, **changes: Any) -> str:
        """A token with good claims but for these changes."""
        return self.raw({"alg": "ES256", "kid": "key-1"}, self.claims(**changes))

    def with_header(self, **changes: Any) -> str:
        """A token with a good header but for these changes; None leaves one out."""
        header = {"alg": "ES256", "kid": "key-1", **changes}
        return self.raw({n: v for n, v in header.items() if v is not None}, self.claims())

    def raw(self, header: object, claims: object, key: ECKey | RSAKey | None = None) -> str:
        """A token with this header and these claims, both JSON or bytes, signed with ES256."""
        signing_input = f"{segment(header)}.{segment(claims)}"
        signer = self.key if key is None else key
        signature = ALGORITHMS["ES256"].sign(signing_input.encode(), signer)
        return f"{signing_input}.{encoded(signature)}"

    def signed_by(self, key: Any, algorithm: str = "ES256", **header: Any) -> str:
        """A good token, signed with another key or algorithm."""
        full = {"alg": algorithm, "kid": key.kid, **header}
        return jwt.encode(full, self.claims(), key, algorithms=[algorithm])

    def keyed_with(self, secret: bytes, algorithm: str = "HS256", kid: str = "key-1") -> str:
        """A good token with a MAC in the place of a signature."""
        signing_input = f"{segment({'alg': algorithm, 'kid': kid})}.{segment(self.claims())}"
        digest = f"sha{algorithm[2:]}"
        return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), digest))}"

    def resigned(self, signature: Callable[[bytes], bytes]) -> str:
        """A good token with another signature."""
        head, body, tail = self.token().split(".")
        return f"{head}.{body}.{encoded(signature(decoded(tail)))}"

    def as_der(self) -> str:
        """Signed well, but the signature is in ASN.1, not in JOSE's form."""
        signing_input = f"{segment({'alg': 'ES256', 'kid': 'key-1'})}.{segment(self.claims())}"
        private = self.key.private_key
        assert private is not None
        der = private.sign(signing_input.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{signing_input}.{encoded(der)}"

    def in_text(self, old: str, new: str) -> str:
        """A signed token; in the text of its claims something was replaced before."""
        text = json.dumps(self.claims())
        assert old in text
        return self.raw({"alg": "ES256", "kid": "key-1"}, text.replace(old, new, 1).encode())


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def segment(content: object) -> str:
    return encoded(content if isinstance(content, bytes) else json.dumps(content).encode())


def _nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


def _tampered(forge: Forge) -> str:
    head, _, tail = forge.token().split(".")
    return f"{head}.{segment(forge.claims(sub='root'))}.{tail}"


def _reheaded(forge: Forge) -> str:
    _, body, tail = forge.token().split(".")
    return f"{segment({'alg': 'ES256', 'kid': 'key-1', 'x': 1})}.{body}.{tail}"


def _encrypted(forge: Forge) -> str:
    header = {"alg": "ECDH-ES", "enc": "A128GCM", "kid": "enc"}
    return jwe.encrypt_compact(header, json.dumps(forge.claims()), forge.for_encryption)


def _json_form(forge: Forge) -> str:
    head, body, tail = forge.token().split(".")
    return json.dumps({"protected": head, "payload": body, "signature": tail})


Trick = Callable[[Forge], str]
_EC_HEADER = {"alg": "ES256", "kid": "key-1"}

HEADERS: dict[str, Trick] = {
    "alg none": lambda f: f"{segment({'alg': 'none'})}.{segment(f.claims())}.",
    "alg none with a signature": lambda f: f.with_header(alg="none"),
    "alg None": lambda f: f.with_header(alg="None"),
    "alg NONE": lambda f: f"{segment({'alg': 'NONE', 'kid': 'key-1'})}.{segment(f.claims())}.AA",
    "alg in other letters": lambda f: f.with_header(alg="es256"),
    "no alg": lambda f: f.with_header(alg=None),
    "alg a number": lambda f: f.with_header(alg=256),
    "alg a list": lambda f: f.with_header(alg=["ES256"]),
    "alg null": lambda f: f.raw(b'{"alg":null,"kid":"key-1"}', f.claims()),
    "HS256 with the public key in PEM": lambda f: f.keyed_with(f.key.as_pem(private=False)),
    "HS256 with the public key in DER": lambda f: f.keyed_with(f.key.as_der(private=False)),
    "HS256 with the RSA key in PEM": lambda f: f.keyed_with(
        f.rsa.as_pem(private=False), kid="key-3"
    ),
    "HS256 with the JWK": lambda f: f.keyed_with(json.dumps(f.jwks()["keys"][0]).encode()),
    "HS256 with an empty key": lambda f: f.keyed_with(b""),
    "HS256 with the key that was published": lambda f: f.keyed_with(
        f.shared.raw_value, kid="shared"
    ),
    "HS384": lambda f: f.keyed_with(f.key.as_pem(private=False), "HS384"),
    "HS512": lambda f: f.keyed_with(f.key.as_pem(private=False), "HS512"),
    "ES384": lambda f: f.signed_by(f.curve, "ES384"),
    "PS256": lambda f: f.signed_by(f.rsa, "PS256"),
    "RS512": lambda f: f.signed_by(f.rsa, "RS512"),
    "RS256 under the id of an EC key": lambda f: f.signed_by(f.rsa, "RS256", kid="key-1"),
    "ES256 under the id of an RSA key": lambda f: f.signed_by(f.key, "ES256", kid="key-3"),
    "crit": lambda f: f.with_header(crit=["exp"], exp=1),
    "crit, empty": lambda f: f.with_header(crit=[]),
    "crit of b64": lambda f: f.with_header(crit=["b64"], b64=True),
    "b64": lambda f: f.with_header(b64=False),
    "jku": lambda f: f.with_header(jku="https://attacker.example/jwks"),
    "jku of the issuer": lambda f: f.with_header(jku=f"{f.issuer}jwks"),
    "jwk with a key of one's own": lambda f: f.raw(
        {"alg": "ES256", "kid": "mine", "jwk": f.mine.as_dict(private=False)}, f.claims(), f.mine
    ),
    "jwk under the id of a good key": lambda f: f.raw(
        {**_EC_HEADER, "jwk": f.mine.as_dict(private=False)}, f.claims(), f.mine
    ),
    "x5u": lambda f: f.with_header(x5u="https://attacker.example/chain.pem"),
    "x5c": lambda f: f.with_header(x5c=["MIIB"]),
    "kid of nobody": lambda f: f.with_header(kid="elsewhere"),
    "kid a number": lambda f: f.with_header(kid=1),
    "kid a list": lambda f: f.with_header(kid=["key-1"]),
    "kid empty": lambda f: f.with_header(kid=""),
    "kid a path": lambda f: f.with_header(kid="../../../../dev/null"),
    "kid of SQL": lambda f: f.with_header(kid="key-1' OR '1'='1"),
    "no kid where there are two keys": lambda f: f.with_header(kid=None),
    "typ of an assertion": lambda f: f.with_header(typ="gridlane-assertion+jwt"),
    "typ of a logout token": lambda f: f.with_header(typ="logout+jwt"),
    "typ a number": lambda f: f.with_header(typ=1),
    "alg twice": lambda f: f.raw(b'{"alg":"ES256","kid":"key-1","alg":"none"}', f.claims()),
    "kid twice": lambda f: f.raw(b'{"alg":"ES256","kid":"mine","kid":"key-1"}', f.claims()),
    "header a list": lambda f: f.raw([_EC_HEADER], f.claims()),
    "header a text": lambda f: f.raw("ES256", f.claims()),
    "header no JSON": lambda f: f.raw(b"alg=ES256", f.claims()),
    "header in UTF-16": lambda f: f.raw(json.dumps(_EC_HEADER).encode("utf-16"), f.claims()),
    "header with a BOM": lambda f: f.raw(b"\xef\xbb\xbf" + json.dumps(_EC_HEADER).encode(), {}),
    "header of 600 bytes": lambda f: f.with_header(x="x" * 600),
    "header nested": lambda f: f.raw(
        f'{{"alg":"ES256","kid":"key-1","x":{_nested(20)}}}'.encode(), f.claims()
    ),
}

SIGNATURES: dict[str, Trick] = {
    "another's key under its own id": lambda f: f.signed_by(f.mine),
    "another's key under a good id": lambda f: f.signed_by(f.mine, kid="key-1"),
    "another key of the issuer": lambda f: f.signed_by(f.other, kid="key-1"),
    "a key that is too short": lambda f: f.signed_by(f.short, "RS256"),
    "a key for encryption": lambda f: f.signed_by(
        ECKey.import_key({**f.for_encryption.as_dict(private=True), "use": "sig"})
    ),
    "a key whose private half was published": lambda f: f.signed_by(f.published),
    "a key that has retired": lambda f: f.signed_by(f.retired),
    "a key that is none": lambda f: f.with_header(kid="broken"),
    "no signature": lambda f: f.token().rpartition(".")[0] + ".",
    "a short signature": lambda f: f.token()[:-4],
    "a long signature": lambda f: f.token() + "AAAA",
    "a signature of zeros": lambda f: f.resigned(lambda s: bytes(64)),
    "a signature of ones": lambda f: f.resigned(lambda s: b"\xff" * 64),
    "a signature of nothing but r": lambda f: f.resigned(lambda s: s[:32] + bytes(32)),
    "a signature turned round": lambda f: f.resigned(lambda s: s[32:] + s[:32]),
    "a signature in ASN.1": lambda f: f.as_der(),
    "another token's signature": lambda f: (
        f.token().rpartition(".")[0] + "." + f.token(sub="bob").rpartition(".")[2]
    ),
    "a changed claim": _tampered,
    "a changed header": _reheaded,
}

FORMS: dict[str, Trick] = {
    "empty": lambda f: "",
    "dots": lambda f: "...",
    "two segments": lambda f: "a.b",
    "two good segments": lambda f: f.token().rpartition(".")[0],
    "four segments": lambda f: f.token() + ".AA",
    "encrypted": _encrypted,
    "in JSON": _json_form,
    "no base64": lambda f: "!!!.???.***",
    "with padding": lambda f: f.token() + "==",
    "with a line feed": lambda f: f.token() + "\n",
    "with a blank inside": lambda f: f.token().replace(".", " .", 1),
    "with characters that decoders pass over": lambda f: f.token().replace(".", "!.", 1),
    "in the other base64": lambda f: f.token().replace(".", "+.", 1),
    "in Unicode digits": lambda f: f.token()[:-1] + "\u0661",
    "a lone surrogate": lambda f: f.token() + "\ud800",
    "longer than 16 KiB": lambda f: f.token(name="x" * 20_000),
    "claims a list": lambda f: f.raw(_EC_HEADER, [f.claims()]),
    "claims null": lambda f: f.raw(_EC_HEADER, None),
    "claims no JSON": lambda f: f.raw(_EC_HEADER, b"\xff\xfe{"),
    "claims empty": lambda f: f.raw(_EC_HEADER, {}),
    "claims in UTF-16": lambda f: f.raw(_EC_HEADER, json.dumps(f.claims()).encode("utf-16")),
    "claims in Latin-1": lambda f: f.raw(
        _EC_HEADER, json.dumps(f.claims(name="Zo\u00eb"), ensure_ascii=False).encode("latin-1")
    ),
    "claims with something behind": lambda f: f.raw(
        _EC_HEADER, json.dumps(f.claims()).encode() + b"{}"
    ),
    "sub twice": lambda f: f.in_text('"sub": "ada"', '"sub": "ada", "sub": "root"'),
    "aud twice": lambda f: f.in_text('"aud":', '"aud": "elsewhere", "aud":'),
    "a member twice, deep inside": lambda f: f.in_text('"jti"', '"x": {"a": 1, "a": 2}, "jti"'),
    "NaN": lambda f: f.in_text('"jti"', '"x": NaN, "jti"'),
    "Infinity": lambda f: f.in_text('"jti"', '"x": -Infinity, "jti"'),
    "nested 20 deep": lambda f: f.in_text('"jti"', f'"x": {_nested(20)}, "jti"'),
    "nested 3000 deep": lambda f: f.raw(_EC_HEADER, b"[" * 3000),
    "objects nested 500 deep": lambda f: f.in_text(
        '"jti"', '"x": ' + '{"a":' * 500 + "1" + "}" * 500 + ', "jti"'
    ),
    "a number of 5000 digits": lambda f: f.in_text('"jti"', f'"x": {"9" * 5000}, "jti"'),
}

# Claim by claim: what breaks it; None leaves it out, and a function makes it.
_BROKEN: dict[str, tuple[Any, ...]] = {
    "iss": (
        None,
        "",
        7,
        "https://elsewhere.example/",
        lambda f: f.issuer.upper(),
        lambda f: f.issuer.rstrip("/") + "//",
        lambda f: f.issuer + " ",
        lambda f: f.issuer + "\0",
        lambda f: f.issuer.replace("https:", "http:"),
        lambda f: f.issuer.replace("issuer", "issu\u0435r"),
        lambda f: [f.issuer],
        "urn:gridlane:service",
        "urn:gridlane:service:workload",
    ),
    "aud": (
        None,
        "",
        7,
        "https://elsewhere.example",
        lambda f: f.audience + "/",
        lambda f: f.audience.upper(),
        lambda f: f"{f.audience} https://elsewhere.example",
        lambda f: {f.audience: 1},
        lambda f: [[f.audience]],
        lambda f: [f.audience, 1],
        [],
        ["a", "b"],
        "ANY",
        "*",
        "https://wlcg.cern.ch/jwt/v1/any/",
    ),
    "sub": (None, "", 7, "x" * 256, "ada\0", "ada\nroot", "\ud800", ["ada"], "\u202eada"),
    "jti": (None, "", 7, ["1"]),
    "wlcg.ver": (None, "", "2.0", "10.0", "0.9", "1.x", "1.0\n", 1.0, 1, ["1.0"], "one"),
    "exp": (
        None,
        "9999999999",
        True,
        -1,
        1e300,
        10**400,
        lambda f: [int(time.time()) + 60],
        lambda f: str(int(time.time()) + 60),
    ),
    "iat": (
        None,
        "0",
        True,
        -1,
        lambda f: int(time.time()) + 3600,
        lambda f: int(time.time()) + 60,
    ),
    "nbf": ("0", False, lambda f: int(time.time()) + 3600, lambda f: int(time.time()) + 60),
    "scope": (
        7,
        ["compute.read"],
        "storage.read",
        "storage.read:",
        "storage.read:foo",
        "storage.modify",
        "storage.create:~/x",
        "compute.read storage.stage",
        "storage.read:/ok storage.read",
        "compute.read\0",
        "compute.read\ncompute.create",
    ),
    "wlcg.groups": (
        "/cms",
        {"a": 1},
        [1],
        ["cms"],
        [""],
        ["/"],
        ["/cms/"],
        ["//cms"],
        ["/cms/../atlas"],
        ["/cms production"],
        ["/cms\n"],
        [["/cms"]],
        ["/cms", None],
        ["/cms\0"],
    ),
}


def _claiming(name: str, value: Any) -> Trick:
    return lambda f: f.token(**{name: value(f) if callable(value) else value})


def _shown(value: Any) -> str:
    return "left out" if value is None else "made" if callable(value) else f"{value!r:.40}"


CLAIMS: dict[str, Trick] = {
    f"{name}, {number}: {_shown(value)}": _claiming(name, value)
    for name, values in _BROKEN.items()
    for number, value in enumerate(values)
}

HOSTILE: dict[str, Trick] = HEADERS | SIGNATURES | FORMS | CLAIMS
