"""How good restored frames are, without a reference to any network."""
