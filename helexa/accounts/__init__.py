"""Who may spend what: keys, budgets and their windows, the ledger on disk, and what was spent.

`provider` is the seam that listeners and the gateway see; `helexa.actors.ledger` stands behind it on
one machine, and a clearing house for several could.  Decisions (`windows`, `book`) are pure; the files
(`keyfile`, `database`, `backup`) are the edge.
"""
