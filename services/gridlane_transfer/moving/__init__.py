"""What becomes of the files of jobs: which source is tried, started, ended, tried again, removed,
held."""
