"""Attack this program at random for a while: `make torture`, `SECONDS=60 SEED=7 make torture`.

Each attack is one round of something that must not break, and raises `AssertionError` for a fault.
It runs in a process of its own, which ends every process of the round and removes its folder,
also when the round is cut at the time limit. One round again, without a limit:
`python -m bench.torture ATTACK SEED NUMBER`.
"""
