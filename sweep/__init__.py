"""How a sweep works: flags are claimed, performed and settled."""
