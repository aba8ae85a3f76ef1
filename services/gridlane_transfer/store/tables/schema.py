"""The schema that every table of Transfer is part of."""

from typing import Final

from sqlalchemy import Text

from gridlane_kit.database import service_metadata

METADATA: Final = service_metadata()
BY_CODE_POINT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""The type of what is listed in its order, or by what it begins with: by code points on both
engines, whatever the language of the database."""
