"""What ``flagsweep doctor`` looks at: the database, what it stands on, whether anybody sweeps, and the flags."""
