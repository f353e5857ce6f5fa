"""Real servers for tests: each starts as our child on a free loopback port, in a directory of its
own, and is ended by its own pid."""
