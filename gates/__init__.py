"""Whether a kind may be swept just now, and how much of it: limits, quiet hours and the breaker.

They are rules without clock or database: time, zone and state are arguments.
"""
