"""Storage elements: which there are, what a name stands for, and what may not be done at one."""
