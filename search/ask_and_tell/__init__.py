"""Searching from outside: a task's space for a loop of one's own."""
