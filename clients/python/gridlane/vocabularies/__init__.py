"""Gridlane's states and priorities in the words of other systems, and theirs in Gridlane's.

Responsible for the one copy of these tables: `transfers` (gLite, FTS3, DIRAC's FTS3 objects),
`jobs` (DIRAC, BPS, bartender, TES, Slurm), `workflows` (BPS), `priorities`. Services, doors and
plugins read them here; the page `docs/reference/vocabularies.md` is made from them. Not for
speaking with those systems, nor for who may change a state. Nothing is imported but the generated
enums.
"""
