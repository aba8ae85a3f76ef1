"""What Authorization's settings accept."""

import pytest
from pydantic import ValidationError

from gridlane_authorization.settings import AuthorizationSettings


@pytest.mark.parametrize("text", ["ada", "https://issuer.example/ ada lovelace"])
def test_a_bootstrap_admin_is_an_issuer_and_a_subject(text: str) -> None:
    with pytest.raises(ValidationError, match="issuer and a subject"):
        AuthorizationSettings.load("authorization", bootstrap_admin=text)
