"""Outside issuers: each speaks for one VO, and for nothing that it was not asked about."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_tokens import Forge, ec_key
from pydantic import ValidationError

from gridlane_kit.decision import scope_covers
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal, PrincipalKind
from gridlane_kit.issuers import Issuer, TrustedIssuers
from gridlane_kit.jwks import JwksError, PublicKeys
from gridlane_kit.tokens import StaticKeys, TokenVerifier

AUDIENCE = "https://gridlane.test"
CMS = Forge("https://cms.test/", AUDIENCE, {})
ATLAS = Forge("https://atlas.test/", AUDIENCE, {})
OWN = Forge("https://gridlane.test/", AUDIENCE, {"gridlane.kind": "user"})


class House:
    """A verifier that believes what is configured, from files."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.files: dict[str, Path] = {}
        for vo, forge in (("cms", CMS), ("atlas", ATLAS)):
            self.files[vo] = folder / f"{vo}.json"
            self.files[vo].write_text(json.dumps(forge.jwks()))
        self.cms = Issuer(url=CMS.issuer, vo="cms", jwks_file=self.files["cms"], **options)
        self.atlas = Issuer(url=ATLAS.issuer, vo="atlas", jwks_file=self.files["atlas"])
        self.issuers = TrustedIssuers(AUDIENCE, [self.cms, self.atlas])
        own = StaticKeys(OWN.jwks())
        self.verifier = TokenVerifier({OWN.issuer: own}, AUDIENCE, self.issuers)

    async def reads(self, token: str) -> Principal:
        return await self.verifier.verify(token)

    async def refuses(self, token: str) -> None:
        with pytest.raises(GridlaneError) as caught:
            await self.verifier.verify(token)
        assert caught.value.reason == "TOKEN_INVALID"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_user_belongs_to_the_vo_of_its_issuer_and_to_no_other(house: House) -> None:
    groups = ["/cms/production", "/atlas", "/cmsx", "/cms", "/atlas/cms"]
    token = CMS.token(**{"wlcg.groups": groups, "gridlane.vos": ["atlas"], "name": "Ada L."})
    ada = await house.reads(token)
    assert (ada.issuer, ada.subject, ada.display_name) == (CMS.issuer, "ada", "Ada L.")
    assert ada.vos == {"cms"}
    assert ada.groups == {"/cms/production", "/cms"}
    assert ada.active_group == "/cms/production"
    assert (await house.reads(ATLAS.token())).vos == {"atlas"}


async def test_one_subject_of_two_issuers_is_two_people(house: House) -> None:
    assert (await house.reads(CMS.token())).owner != (await house.reads(ATLAS.token())).owner


async def test_an_outside_issuer_cannot_say_that_the_bearer_is_a_job_or_another_user(
    house: House,
) -> None:
    told = {
        "gridlane.kind": "job",
        "gridlane.job": "jobs/1",
        "gridlane.attempt": 1,
        "gridlane.owner_issuer": OWN.issuer,
    }
    ada = await house.reads(CMS.token(**told))
    assert (ada.kind, ada.job, ada.issuer) == (PrincipalKind.USER, None, CMS.issuer)


async def test_an_issuer_does_not_sign_for_another_one(house: House) -> None:
    await house.refuses(CMS.token(iss=ATLAS.issuer))
    await house.refuses(CMS.token(iss=OWN.issuer, **{"gridlane.kind": "user"}))
    await house.refuses(OWN.token(iss=CMS.issuer))


async def test_an_issuer_may_have_audiences_of_its_own(tmp_path: Path) -> None:
    house = House(tmp_path, audiences=("https://cms.example",))
    for audience in (AUDIENCE, "https://cms.example", ["x", "https://wlcg.cern.ch/jwt/v1/any"]):
        assert (await house.reads(CMS.token(aud=audience))).subject == "ada"
    await house.refuses(ATLAS.token(aud="https://cms.example"))


async def test_an_issuer_may_be_held_to_one_algorithm(tmp_path: Path) -> None:
    house = House(tmp_path, algorithms=("RS256",))
    await house.refuses(CMS.token())
    assert (await house.reads(CMS.signed_by(CMS.rsa, "RS256"))).subject == "ada"


async def test_keys_may_stand_in_the_configuration_itself() -> None:
    keys = json.dumps(CMS.jwks())
    issuers = TrustedIssuers(AUDIENCE, [Issuer(url=CMS.issuer, vo="cms", jwks=keys)])
    verifier = TokenVerifier({}, AUDIENCE, issuers)
    assert (await verifier.verify(CMS.token())).vos == {"cms"}


async def test_a_replaced_file_of_keys_is_taken_up_and_ends_what_the_old_ones_proved(
    house: House,
) -> None:
    old = await house.verifier.prove(CMS.token())
    other = await house.verifier.prove(ATLAS.token())
    new = ec_key("new")
    house.files["cms"].write_text(json.dumps({"keys": [new.as_dict(private=False)]}))
    assert (await house.reads(CMS.signed_by(new))).subject == "ada"
    await house.refuses(CMS.token())
    assert (old.trust.ended, other.trust.ended) == (True, False)


async def test_a_spoilt_or_missing_file_leaves_the_keys_as_they_are(house: House) -> None:
    for spoil in ("{", '{"keys": []}', "[]"):
        house.files["cms"].write_text(spoil)
        assert (await house.reads(CMS.token())).subject == "ada"
    house.files["cms"].unlink()
    assert (await house.reads(CMS.token())).subject == "ada"


async def test_who_is_believed_can_be_replaced_while_the_server_runs(house: House) -> None:
    cms = await house.verifier.prove(CMS.token())
    atlas = await house.verifier.prove(ATLAS.token())
    house.issuers.replace([house.cms])
    assert (cms.trust.ended, atlas.trust.ended) == (False, True)
    assert (await house.reads(CMS.token())).vos == {"cms"}
    await house.refuses(ATLAS.token())
    house.issuers.replace([house.cms.model_copy(update={"vo": "dune"})])
    assert cms.trust.ended
    assert (await house.reads(CMS.token())).vos == {"dune"}
    with pytest.raises(ValueError, match="twice"):
        house.issuers.replace([house.atlas, house.atlas])
    assert [issuer.vo for issuer in house.issuers.issuers] == ["dune"]


@pytest.mark.parametrize(
    ("scope", "path", "covered"),
    [
        ("storage.read:/foo/bar", "/foo/bar/x", True),
        ("storage.read:/foo/bar", "/foo/bargain", False),
        ("storage.read:/foo//bar/./", "/foo/bar/x", True),
        ("storage.read:/foo%20bar", "/foo bar/x", True),
        ("storage.read:/foo%2fbar", "/foo/bar", False),
        ("storage.read:/foo/%2e%2e/bar", "/bar", False),
        ("storage.read:/foo/../bar", "/bar", False),
        ("storage.read:/foo/../bar", "/foo/bar", False),
        ("storage.read:/%zz", "/%zz", True),
        ("storage.read:/%ff", "/\\xff", False),
        ("storage.read:/", "/anything", True),
        ("storage.readall:/", "/x", False),
    ],
)
async def test_paths_of_scopes_are_normalised(
    house: House, scope: str, path: str, covered: bool
) -> None:
    principal = await house.reads(CMS.token(scope=f"openid {scope}"))
    assert scope_covers(principal, "storage.read", path) is covered


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://cms.test/"},
        {"url": "https://cms.test/|x"},
        {"url": "https://cms.test/ x"},
        {"url": "https://me@cms.test/"},
        {"url": "https://cms.test/?x"},
        {"url": "urn:gridlane:service"},
        {"url": "file:///etc/passwd"},
        {"url": "https://" + "x" * 255},
        {"vo": ""},
        {"vo": "cms/x"},
        {"audiences": ("",)},
        {"algorithms": ()},
        {"algorithms": ("HS256",)},
        {"jwks_uri": "http://cms.test/jwks"},
        {"jwks_uri": "https://cms.test/jwks", "jwks_file": "keys.json"},
        {"jwks": "{"},
        {"jwks": '{"keys": []}'},
        {"jwks": json.dumps(CMS.jwks()), "jwks_file": "keys.json"},
        {"unheard_of": 1},
    ],
    ids=" ".join,
)
def test_an_issuer_that_is_not_safe_cannot_be_configured(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"url": "https://cms.test/", "vo": "cms"}
    Issuer(**good)
    Issuer(**good | {"url": "http://127.0.0.1:8080/"})
    with pytest.raises(ValidationError):
        Issuer(**good | changes)


def test_only_keys_that_can_prove_a_token_are_taken_of_a_jwks() -> None:
    keys = PublicKeys.read(CMS.jwks())
    assert keys.names == (
        "key-1 (ES256)",
        "key-2 (ES256)",
        "key-3 (RS256)",
        "retired (ES256)",
    )
    assert keys.find("ES256", None) == ()
    assert [key.kid for key in keys.find("RS256", None)] == ["key-3"]
    with pytest.raises(JwksError, match="no key"):
        PublicKeys.read({"keys": [CMS.short.as_dict(private=False)]})


def test_what_fetches_keys_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, gridlane_server.assembly; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
