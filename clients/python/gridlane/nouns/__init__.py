"""The facade's verbs, one module for each kind of resource. Each is written once and serves both
facades.

What is common to all verbs:

* `timeout`: seconds or a timedelta until the answer, over all attempts; None means the client's
default (30 s).
* They raise a subclass of `gridlane.GridlaneError`; its own docstring tells when.
* All are safe to repeat, and are repeated while the server is away or full, within the timeout.
* Answers are the generated messages of the contracts.
"""
