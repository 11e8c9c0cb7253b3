"""Deterministic simulation: the service's own task tree on a virtual clock, with simulated surroundings.

One seed is one history. It decides the settings, the traffic, the faults and the order in which Trio runs its
tasks, and it repeats all of them to the step. docs/determinism.md says what makes that so.
"""
