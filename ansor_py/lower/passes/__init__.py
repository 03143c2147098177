"""The passes of lowering, one file each: functions from program to program (`ansor_py.lower.lower` has their order)."""
