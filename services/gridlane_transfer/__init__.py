"""Transfer: storage elements, channels, transfer jobs and their files, the replica catalogue, the
bytes.

Knows files and where they lie; knows nothing of jobs. `room` is what a server is assembled from.
Importing the package must stay cheap: the mover's worker processes import parts of it.
"""
