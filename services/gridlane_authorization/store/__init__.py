"""What Authorization keeps: tables, statements, and the transactions that change the policy.

`tables` declares · `policy` has the revisions and what changed with each · `bindings`, `vos`,
`groups` and `issuers` the nouns that a policy is made of · `user_tokens` what was signed for users,
and revoked · `signing_keys` the keys that sign · `users` those whom a first start makes. All of it
is synchronous and runs in the kit's database threads.

Only Authorization holds bindings; every other service has the policy made from them.
"""

from gridlane_authorization.store.policy import (
    PolicyState as PolicyState,
)
from gridlane_authorization.store.policy import (
    StoredPolicy as StoredPolicy,
)
from gridlane_authorization.store.policy import (
    change_policy as change_policy,
)
from gridlane_authorization.store.policy import (
    open_policy as open_policy,
)
from gridlane_authorization.store.policy import (
    read_changes as read_changes,
)
from gridlane_authorization.store.policy import (
    read_policy as read_policy,
)
from gridlane_authorization.store.policy import (
    read_state as read_state,
)
from gridlane_authorization.store.tables import METADATA as METADATA
from gridlane_authorization.store.tables import MIGRATIONS as MIGRATIONS
from gridlane_authorization.store.users import LocalUser as LocalUser
from gridlane_authorization.store.users import create_first_admin as create_first_admin
from gridlane_authorization.store.users import create_local_user as create_local_user
from gridlane_authorization.store.users import read_local_user as read_local_user
