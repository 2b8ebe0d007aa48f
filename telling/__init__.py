"""Telling people: who hears of failures, deaths and broken promises, and by which way."""
