"""Transfer jobs: submitted, read, listed, watched, changed and explained; what makes one
acceptable, and what of it is stored."""
