"""Files kept on this computer by their digest: each user's own, and what a host's users share."""
