"""Side-by-side measurements against peers: figures for people, never timed tests."""
