"""What a shared queue is for: nudges and locks between processes and hosts. Nothing depends on it."""
