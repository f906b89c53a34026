"""Actors: an object with private fields, one `run(*, task_status)` coroutine and a mailbox.

Others hold the mailbox (or a method that only talks to it), never the fields.  Starting is
`await nursery.start(actor.run)`, stopping is cancelling the nursery.
"""
