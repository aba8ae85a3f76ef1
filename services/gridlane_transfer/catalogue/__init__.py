"""The replica catalogue: which logical files there are, and where their copies lie."""
