"""What a program calls: train, load, plan, run, evaluate and film; the command line and the papers rest on it."""
