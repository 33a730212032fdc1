"""The particle tasks of OMAR's data: spread (Cooperative Navigation), tag (Predator-Prey), world (World)."""
