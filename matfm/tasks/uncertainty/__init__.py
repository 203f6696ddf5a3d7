"""How far predictions can be trusted: intervals, calibration, applicability domain."""
