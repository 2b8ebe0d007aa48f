"""What people ask: which flags there are, what becomes of the dead, whether all is well."""
