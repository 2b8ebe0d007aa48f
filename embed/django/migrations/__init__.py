"""Our tables as migrations: each makes one step of those that ``flagsweep init`` makes, unless it was made already."""
