"""Two sides of n units each on a plane: many agents at a linear cost but for distances.

It is in kind the combat game of DoF (Li et al. 2025, section 5.2), whose grid, sight, health and
scripts are not printed; the rules here are our own (dialect battle-v1).
"""

QUALITIES = ("medium", "good", "poor", "mixed", "random")
"""The qualities of data that every size has."""
