"""Which issuers of users' tokens are believed, beside Gridlane's own Authorization.

Responsible for what is configured of an issuer, by the operator or by policy, for the set of them
that is in force now, and for keeping their keys fresh. Where keys come from is `issuer_keys`'; what
a token must say is `token_profile`'s. An issuer is found by its name, compared exactly, character
by character.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gridlane_kit.addresses import Addresses
from gridlane_kit.identity import Trust
from gridlane_kit.issuer_documents import DocumentError, Documents, is_plain_loopback
from gridlane_kit.issuer_keys import (
    REFRESH_S,
    RETRY_S,
    FileKeys,
    KeySource,
    KeyStatus,
    RemoteKeys,
    StaticKeys,
)
from gridlane_kit.jwks import JwksError, PublicKeys
from gridlane_kit.token_profile import GROUP_AGE_S, IssuerProfile

_LONGEST_S: Final = 30 * 86_400.0


class Issuer(BaseModel):
    """An outside issuer, as it is configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        max_length=255,
        # Identities are `issuer|subject`: the issuer must have no bar.
        pattern=r"^https?://[^\s|?#@]+$",
        description="`iss` of its tokens, compared exactly",
    )
    vo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
        description="the virtual organisation that it speaks for",
    )
    audiences: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="`aud` of tokens that are taken from it, beside the deployment's own audience",
    )
    algorithms: tuple[Literal["ES256", "RS256"], ...] = Field(
        default=("ES256", "RS256"), min_length=1, description="with which it signs"
    )
    jwks_uri: str = Field(
        default="", description="where its keys lie; empty: where its discovery document says"
    )
    jwks_file: Path | None = Field(
        default=None,
        description="a file with its keys (JWKS), read again when it changes: nothing is fetched",
    )
    jwks: str = Field(
        default="", description="its keys themselves (JWKS as JSON): nothing is fetched"
    )
    max_group_age_s: float = Field(
        default=GROUP_AGE_S,
        gt=0,
        le=_LONGEST_S,
        description="for how long the groups of its tokens are believed of work that runs later",
    )
    max_token_lifetime_s: float | None = Field(
        default=None,
        gt=0,
        le=_LONGEST_S,
        description="the longest time from `iat` to `exp` that is taken; unset: any",
    )

    @field_validator("jwks")
    @classmethod
    def _has_keys(cls, value: str) -> str:
        if value:
            try:
                PublicKeys.read(json.loads(value))
            except RecursionError:
                raise ValueError("no JSON") from None
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        for url in filter(None, (self.url, self.jwks_uri)):
            if not url.startswith("https://") and not is_plain_loopback(url):
                raise ValueError(f"{url}: only https, or http on this machine")
        if len([given for given in (self.jwks_uri, self.jwks_file, self.jwks) if given]) > 1:
            raise ValueError("jwks_uri, jwks_file and jwks exclude each other")
        return self


class PolicyIssuer(Issuer):
    """An outside issuer that policy has: an administrator added it while servers run.

    It speaks HTTPS, from addresses that an administrator may have this server connect to.
    """

    name: str = Field(pattern=r"^issuers/[a-z0-9][a-z0-9.-]{0,63}$")
    jwks_file: None = None

    @model_validator(mode="after")
    def _speaks_https(self) -> Self:
        if not all(url.startswith("https://") for url in filter(None, (self.url, self.jwks_uri))):
            raise ValueError("only https")
        return self


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer that is believed: what of it, and the keys that prove it. On its `word` rests what
    others proved of its users."""

    profile: IssuerProfile
    keys: KeySource
    algorithms: frozenset[str]
    word: Trust = field(default_factory=Trust, compare=False)


class IssuerReport(NamedTuple):
    """Whether an issuer's keys can be had; `problem` is empty then."""

    url: str
    vo: str
    keys: tuple[str, ...] = ()
    problem: str = ""


class IssuerBook(Protocol):
    """Finds a believed issuer by the name in a token."""

    def get(self, url: str) -> TrustedIssuer | None:
        """Returns the issuer with exactly this name."""


class TrustedIssuers:
    """The outside issuers of this process; started and stopped with it.

    Parameters:
        audience: the deployment's, which any token may name.
        issuers: those believed at first; `replace` puts others in their place.
        documents: fetches what issuers of the settings publish; None: as usual.
        policy_documents: fetches what issuers of the policy publish; None: as usual, from public
            addresses alone.
        refresh_s, retry_s: see `RemoteKeys`.

    Raises:
        ValueError: two have one name, or one has a name that is not an outside issuer's to have.
        OSError: a file of keys cannot be read.
    """

    def __init__(
        self,
        audience: str,
        issuers: Iterable[Issuer] = (),
        *,
        documents: Documents | None = None,
        policy_documents: Documents | None = None,
        refresh_s: float = REFRESH_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._audience = audience
        self._documents = documents
        self._policy_documents = policy_documents
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._configured: dict[str, Issuer] = {}
        self._believed: dict[str, TrustedIssuer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._running = False
        self._put(issuers)

    def get(self, url: str) -> TrustedIssuer | None:
        """Returns the issuer with exactly this name."""
        return self._believed.get(url)

    @property
    def issuers(self) -> Sequence[Issuer]:
        """What is configured of each."""
        return tuple(self._configured.values())

    def status(self, url: str) -> KeyStatus | None:
        """Returns how the keys of an issuer are; None when it is not believed."""
        issuer = self._believed.get(url)
        return None if issuer is None else issuer.keys.status

    async def report(self) -> Sequence[IssuerReport]:
        """Fetches the keys of all issuers once, at the same time."""
        return await asyncio.gather(*map(self._reported, self._configured.values()))

    async def _reported(self, issuer: Issuer) -> IssuerReport:
        try:
            keys = await self._believed[issuer.url].keys.fetched()
        except (DocumentError, JwksError) as error:
            return IssuerReport(issuer.url, issuer.vo, problem=str(error))
        return IssuerReport(issuer.url, issuer.vo, keys.names)

    def replace(self, issuers: Iterable[Issuer]) -> None:
        """Believes these issuers from now on, and no others; one whose keys come from where they
        came from keeps them. What others proved, or the same one by other rules, must be proven
        anew at once.

        Raises: as the constructor; then all stays as it was.
        """
        before = dict(self._believed)
        self._put(issuers)
        for url, issuer in before.items():
            now = self._believed.get(url)
            if now is issuer:
                continue
            if now is not None and now.keys is issuer.keys:
                issuer.keys.renew()
            else:
                self._end(url, issuer.keys)
                issuer.keys.trust.end()
            issuer.word.end()
        self._begin_all()

    async def start(self) -> None:
        """Begins to fetch keys; does not wait for them."""
        self._running = True
        self._begin_all()

    async def stop(self) -> None:
        """Ends all fetching."""
        self._running = False
        for url, issuer in self._believed.items():
            self._end(url, issuer.keys)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _put(self, issuers: Iterable[Issuer]) -> None:
        configured: dict[str, Issuer] = {}
        for issuer in issuers:
            if issuer.url in configured:
                raise ValueError(f"the issuer {issuer.url} is configured twice")
            configured[issuer.url] = issuer
        self._believed = {
            url: self._believed[url] if self._configured.get(url) == issuer else self._made(issuer)
            for url, issuer in configured.items()
        }
        self._configured = configured

    def _made(self, issuer: Issuer) -> TrustedIssuer:
        audiences = frozenset((self._audience, *issuer.audiences))
        profile = IssuerProfile(
            audiences, issuer.vo, issuer.max_token_lifetime_s, issuer.max_group_age_s
        )
        return TrustedIssuer(profile, self._keys_of(issuer), frozenset(issuer.algorithms))

    def _keys_of(self, issuer: Issuer) -> KeySource:
        before = self._configured.get(issuer.url)
        if before is not None and _key_place(before) == _key_place(issuer):
            return self._believed[issuer.url].keys
        if issuer.jwks_file is not None:
            return FileKeys(issuer.jwks_file)
        if issuer.jwks:
            return StaticKeys(json.loads(issuer.jwks))
        return RemoteKeys(
            issuer.url,
            self._documents_for(issuer),
            jwks_uri=issuer.jwks_uri,
            refresh_s=self._refresh_s,
            retry_s=self._retry_s,
        )

    def _documents_for(self, issuer: Issuer) -> Documents:
        if isinstance(issuer, PolicyIssuer):
            if self._policy_documents is None:
                self._policy_documents = Documents(addresses=Addresses())
            return self._policy_documents
        if self._documents is None:
            self._documents = Documents()
        return self._documents

    def _begin_all(self) -> None:
        if not self._running:
            return
        for url, issuer in self._believed.items():
            if url not in self._tasks and isinstance(issuer.keys, FileKeys | RemoteKeys):
                self._tasks[url] = asyncio.create_task(
                    issuer.keys.keep_fresh(), name=f"keys of {url}"
                )

    def _end(self, url: str, keys: KeySource) -> None:
        """Ends what fetches an issuer's keys."""
        task = self._tasks.pop(url, None)
        if task is not None:
            task.cancel()
            self._also_end(task)
        if isinstance(keys, RemoteKeys):
            self._also_end(asyncio.create_task(keys.close(), name=f"end of keys of {url}"))

    def _also_end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _key_place(issuer: Issuer) -> tuple[object, ...]:
    """Where the keys of an issuer come from, and who says so."""
    return (type(issuer), issuer.url, issuer.jwks_uri, issuer.jwks_file, issuer.jwks)
