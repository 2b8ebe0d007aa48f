"""Being the process that sweeps: it starts, proves that it lives, sees commits, rescues, stops."""
