"""What can be set: `GRIDLANE_AUTHORIZATION_…`, `[authorization]` of the file."""

from pydantic import Field, field_validator

from gridlane_kit.settings import Settings


class AuthorizationSettings(Settings):
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
    local_user: str = Field(
        default="",
        description="embedded: the local user's subject, fixed at the first start; empty: the"
        " operating system's name of who starts the server",
    )
    token_lifetime_days: float = Field(
        default=30,
        gt=0,
        le=3650,
        description="embedded: how long the local user's token is good; it is made anew at each"
        " start and before it ends",
    )
    bootstrap_admin: str = Field(
        default="",
        description="`ISSUER SUBJECT` of who becomes Admin at a start at which nobody is",
    )
    jobs_vo_readable: bool = Field(
        default=True,
        description="whether jobs may be read within their VO (credentials and sandboxes never)",
    )

    @field_validator("bootstrap_admin")
    @classmethod
    def _issuer_and_subject(cls, value: str) -> str:
        if value and len(value.split()) != 2:
            raise ValueError("expected an issuer and a subject with a blank between them")
        return value
