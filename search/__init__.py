"""Search: sampling, evolutionary tuning, policies, the task scheduler and the tuning loop."""
