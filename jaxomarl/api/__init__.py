"""The functions that a program calls: train, load, plan, run, evaluate and film.

The command line and the papers call the same functions.
"""
