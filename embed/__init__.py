"""At home in a host: one module for each, with the same few names. Nothing in the engine imports them."""
