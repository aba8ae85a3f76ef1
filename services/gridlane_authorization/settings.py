"""What can be set: `GRIDLANE_AUTHORIZATION_…`, `[authorization]` of the file."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from gridlane_kit.addresses import Network
from gridlane_kit.issuers import Issuer
from gridlane_kit.settings import StoreSettings


class AuthorizationSettings(StoreSettings):
    """The settings of Authorization, with their defaults."""

    issuer: str = Field(
        default="https://gridlane.local/",
        min_length=1,
        description="`iss` of the tokens that this deployment signs, compared exactly",
    )
    audience: str = Field(
        default="gridlane",
        min_length=1,
        description="`aud` that every token must name; one for the whole deployment",
    )
    issuers: tuple[Issuer, ...] = Field(
        default=(),
        description="outside issuers of users' tokens, for every service; a list of tables"
        " `[[authorization.issuers]]`, or JSON: see"
        " [how to accept their tokens](../how-to/accept-tokens-of-an-issuer.md)",
    )
    issuers_networks: tuple[Network, ...] = Field(
        default=(),
        description="networks (`10.1.0.0/16`) in which the keys of issuers that administrators add"
        " may lie, beside the public internet; those of `issuers` may lie anywhere",
    )
    issuers_ca: Path | None = Field(
        default=None,
        description="roots (PEM) that the issuers' certificates are verified with, beside the"
        " system's",
    )
    issuers_refresh_s: float = Field(
        default=600.0, ge=1, description="how often an issuer's keys are fetched again"
    )
    issuers_retry_s: float = Field(
        default=10.0,
        ge=0.1,
        description="they are never fetched again sooner, be it after a failure or for a token that"
        " names an unknown key",
    )
    jwks: Path | None = Field(
        default=None,
        description="one process a service: the public keys of the issuer (JWKS), for every service"
        " to verify tokens with, read again when the file changes; the embedded server makes its"
        " own",
    )
    token_key: Path | None = Field(
        default=None,
        description="one process a service: the private key (PEM) that tokens are signed with, for"
        " Authorization alone; the embedded server makes its own",
    )
    token_file: Path | None = Field(
        default=None,
        description="one process a service: where a first user, Admin and Submitter of the VO"
        " `local`, finds a token that is kept good; unset: there is no such user",
    )
    local_user: str = Field(
        default="",
        description="the subject of the user who has the token file, fixed at the first start;"
        " empty: the operating system's name of who starts the server",
    )
    token_lifetime_days: float = Field(
        default=30,
        gt=0,
        le=3650,
        description="how long the token in the token file is good; it is made anew at each start"
        " and before it ends",
    )
    max_exchanged_tokens: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="how many tokens one user may have by exchange within six hours, the longest"
        " time for which one is good",
    )
    bootstrap_admin: str = Field(
        default="",
        description="`ISSUER SUBJECT` of who becomes Admin at a start at which nobody is, without"
        " an end and not vetoed",
    )
    jobs_vo_readable: bool = Field(
        default=True,
        description="whether jobs may be read within their VO (credentials and sandboxes never)",
    )
    keep_audit_days: float = Field(
        default=400.0, gt=0, description="entries of the audit are kept so long"
    )
    keep_ended_bindings_days: float = Field(
        default=1.0,
        ge=0,
        description="role bindings past their end, which count for nothing, are kept so long",
    )
    prune_interval_s: float = Field(
        default=600.0, gt=0, description="how often what is past its time is deleted"
    )

    @model_validator(mode="after")
    def _each_issuer_once(self) -> Self:
        urls = [self.issuer, *(issuer.url for issuer in self.issuers)]
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            raise ValueError(f"the issuer {twice} is configured twice")
        return self

    @field_validator("bootstrap_admin")
    @classmethod
    def _issuer_and_subject(cls, value: str) -> str:
        if value and len(value.split()) != 2:
            raise ValueError("expected an issuer and a subject with a blank between them")
        return value
