"""The particle tasks of OMAR's data: spread, tag and world; and DOM2's six landmarks."""
