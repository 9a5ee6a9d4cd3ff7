"""All attacks for a while, or one round of one attack."""

import sys

from bench.torture import rounds, table

if len(sys.argv) > 1:
    name, seed, number, *seconds = sys.argv[1:]
    sys.exit(rounds.play_round(name, int(seed), int(number), float(*seconds or ["inf"])))
sys.exit(table.main())
