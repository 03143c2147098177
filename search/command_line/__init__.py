"""What `python -m ansor_py.search` does with its options: settings, what is tuned, a run. It may import everything."""
