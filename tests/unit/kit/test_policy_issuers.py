"""Issuers of the policy: in its messages, in its file, and believed beside those of settings."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest
from hostile_tokens import Forge

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_kit.addresses import Addresses
from gridlane_kit.errors import GridlaneError
from gridlane_kit.issuers import Issuer, PolicyIssuer, TrustedIssuers
from gridlane_kit.policy import Policy, PolicyChange, PolicyDraft, PolicyHolder
from gridlane_kit.policy_file import KeptPolicy, PolicyFile
from gridlane_kit.policy_issuers import PolicyIssuers
from gridlane_kit.policy_messages import change_message, change_of, snapshot_parts, take_part
from gridlane_kit.tokens import StaticKeys, TokenVerifier

AUDIENCE: Final = "https://gridlane.test"
CMS: Final = Forge("https://cms.test/", AUDIENCE, {})
ATLAS: Final = Forge("https://atlas.test/", AUDIENCE, {})
OWN: Final = Forge("https://gridlane.test/", AUDIENCE, {"gridlane.kind": "user"})
MESSAGE_BYTES: Final = 4 * 1024 * 1024


def issuer(forge: Forge = CMS, **terms: Any) -> PolicyIssuer:
    given = {"name": "issuers/cms", "vo": "cms", "jwks": json.dumps(forge.jwks()), **terms}
    return PolicyIssuer(url=forge.issuer, **given)


FULL: Final = issuer(
    audiences=("https://cms.example", "x"),
    algorithms=("ES256",),
    max_group_age_s=12.5,
    max_token_lifetime_s=3600.0,
)
BY_URI: Final = issuer(ATLAS, name="issuers/a", jwks="", jwks_uri="https://keys.test/")


class House:
    """A process: what it believes, and the policy that it follows."""

    def __init__(self, *settings: Issuer) -> None:
        self.issuers = TrustedIssuers(AUDIENCE, settings)
        self.holder = PolicyHolder(Policy(0, closed=True))
        PolicyIssuers(self.issuers, self.holder)
        own = {OWN.issuer: StaticKeys(OWN.jwks())}
        self.verifier = TokenVerifier(own, AUDIENCE, self.issuers)

    async def accepts(self, token: str) -> bool:
        try:
            await self.verifier.verify(token)
        except GridlaneError as error:
            if error.reason != "TOKEN_INVALID":
                raise
            return False
        return True


def test_what_is_believed_of_an_issuer_survives_the_feed() -> None:
    gone = issuer(OWN, name="issuers/x")
    for given in (issuer(), FULL, BY_URI):
        change = PolicyChange(1, set_issuers=[given], removed_issuers=frozenset({gone.name}))
        got = change_of(
            policy_service_pb2.PolicyChange.FromString(change_message(change).SerializeToString())
        )
        assert Policy(0, issuers=[gone]).changed(got).issuers == {given.name: given}


def test_a_change_sets_and_removes_issuers_and_others_leave_them_alone() -> None:
    both = Policy(1, issuers=[FULL, BY_URI])
    assert both.changed(PolicyChange(2)).issuers is both.issuers
    without = both.changed(PolicyChange(2, removed_issuers=frozenset({"issuers/cms"})))
    assert without.issuers == {"issuers/a": BY_URI}
    changed = without.changed(PolicyChange(3, set_issuers=[issuer()]))
    assert changed.issuers == {"issuers/a": BY_URI, "issuers/cms": issuer()}


def test_one_that_is_not_understood_is_not_believed_and_harms_no_other() -> None:
    message = change_message(PolicyChange(2, set_issuers=[FULL, BY_URI]))
    message.set_issuers[0].algorithms[:] = ["ES512"]
    got = Policy(1, issuers=[issuer()]).changed(change_of(message))
    assert got.issuers == {"issuers/a": BY_URI}


def test_a_snapshot_with_many_large_issuers_comes_in_parts_that_fit() -> None:
    filling = {"keys": [CMS.key.as_dict(private=False), {"n": "A" * 65_000}]}
    many = [
        issuer(name=f"issuers/n{n}", jwks=json.dumps(filling)).model_copy(
            update={"url": f"https://n{n}.test/"}
        )
        for n in range(100)
    ]
    policy, draft = Policy(7, vos=["cms"], issuers=many), PolicyDraft()
    found = []
    for part in snapshot_parts("epoch", policy):
        assert part.ByteSize() < MESSAGE_BYTES / 2
        found.append(take_part(draft, part))
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] is not None
    assert found[-1].issuers == policy.issuers
    assert found[-1].vos == {"cms"}


def test_a_kept_policy_has_its_issuers(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path / "kept")
    file.write(KeptPolicy("epoch", Policy(3, issuers=[FULL, BY_URI]), 1))
    kept = file.read()
    assert kept is not None
    assert kept.policy.issuers == {"issuers/cms": FULL, "issuers/a": BY_URI}


async def test_issuers_are_believed_with_the_policy_that_has_them() -> None:
    house, token = House(), CMS.token()
    assert not await house.accepts(token)
    house.holder.replace(Policy(1, issuers=[issuer()]))
    assert await house.accepts(token)
    house.holder.replace(Policy(1, closed=True))  # stale: calls are refused for that
    assert await house.accepts(token)
    house.holder.replace(Policy(2))
    assert not await house.accepts(token)


async def test_the_operator_s_issuers_stay_and_count_where_both_name_one() -> None:
    atlas = Issuer(url=ATLAS.issuer, vo="atlas", jwks=json.dumps(ATLAS.jwks()))
    house = House(atlas)
    other_keys = issuer(ATLAS, name="issuers/a", jwks=json.dumps(CMS.jwks()), vo="cms")
    house.holder.replace(Policy(1, issuers=[issuer(), other_keys]))
    assert (await house.verifier.verify(ATLAS.token())).vos == {"atlas"}
    assert await house.accepts(CMS.token())
    house.holder.replace(Policy(2))
    assert await house.accepts(ATLAS.token())


async def test_what_was_proven_by_other_rules_is_proven_anew_with_the_same_keys() -> None:
    house = House()
    house.holder.replace(Policy(1, issuers=[issuer()]))
    believed = house.issuers.get(CMS.issuer)
    assert believed is not None
    proof = await house.verifier.prove(CMS.token())
    house.holder.replace(Policy(2, issuers=[issuer()]))
    assert (house.issuers.get(CMS.issuer), proof.trust.ended) == (believed, False)
    house.holder.replace(Policy(3, issuers=[issuer(max_token_lifetime_s=59.0)]))
    changed = house.issuers.get(CMS.issuer)
    assert changed is not None
    assert (changed.keys is believed.keys, proof.trust.ended) == (True, True)
    assert not await house.accepts(CMS.token())


async def test_gridlane_s_own_tokens_rest_on_the_word_of_the_issuer_of_their_users() -> None:
    house = House()
    house.holder.replace(Policy(1, issuers=[issuer()]))
    theirs = OWN.token(**{"gridlane.owner_issuer": CMS.issuer})
    proof, again = await house.verifier.prove(theirs), await house.verifier.prove(theirs)
    ours = await house.verifier.prove(OWN.token())
    assert proof.trust is again.trust
    house.holder.replace(Policy(2))
    assert (proof.trust.ended, ours.trust.ended) == (True, False)
    assert not await house.accepts(theirs)
    house.holder.replace(Policy(3, issuers=[issuer()]))
    assert await house.accepts(theirs)


async def test_an_issuer_that_goes_while_its_keys_are_looked_for_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House()
    house.holder.replace(Policy(1, issuers=[issuer()]))
    believed = house.issuers.get(CMS.issuer)
    assert believed is not None
    found = await believed.keys.find("ES256", "key-1")

    async def find(_algorithm: str, _kid: str | None) -> Any:
        house.holder.replace(Policy(2))
        return found

    monkeypatch.setattr(believed.keys, "find", find)
    assert not await house.accepts(CMS.token())


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"url": "http://127.0.0.1/"}, "only https"),
        ({"jwks": "", "jwks_uri": "http://127.0.0.1/keys"}, "only https"),
        ({"name": "cms"}, "should match pattern"),
        ({"jwks_file": "/etc/passwd"}, "should be None"),
        ({"jwks_uri": "https://keys.test/"}, "exclude each other"),
    ],
)
def test_policy_names_no_files_and_speaks_https(terms: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {**issuer().model_dump(), **terms}
    with pytest.raises(ValueError, match=told):
        PolicyIssuer(**given)


@pytest.mark.parametrize(
    ("address", "public", "named"),
    [
        ("93.184.216.34", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, False),
        ("10.1.2.3", False, True),
        ("10.2.0.1", False, False),
        ("::ffff:10.1.2.3", False, True),
        ("64:ff9b::a01:203", False, True),
        ("64:ff9b::5db8:d822", True, True),
        ("2002:7f00:1::1", False, False),
        ("169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("::1", False, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("nonsense", False, False),
    ],
)
def test_public_addresses_are_reached_and_those_that_the_operator_names(
    address: str, public: bool, named: bool
) -> None:
    assert Addresses().allows(address) is public
    assert Addresses([ip_network("10.1.0.0/16")]).allows(address) is named
