"""One module a revision, in their order."""
