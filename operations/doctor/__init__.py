"""What ``flagsweep doctor`` looks at: the database, what it stands on, whether anybody sweeps, flags and schedules."""
