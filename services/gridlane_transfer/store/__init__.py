"""What Transfer keeps: tables, statements, and the transactions that change a job.

`tables` declares, `jobs` inserts and reads, `changes` is the only place where a file's or job's
state is written, `moving` claims files and takes the mover's answers, `catalogue` has the replicas,
`contents` the uploads, `visibility` turns a decision into a WHERE clause. All of it is synchronous
and runs in the kit's database threads.
"""
