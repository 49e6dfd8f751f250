"""How a missing file comes back: a pure plan, a lease, a recall, one commit."""
