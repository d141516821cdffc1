"""Acts: carries out the scheduler's commands on real processes and real requests, and reports back as events."""
