"""Everything dies, all the time, while people talk; then the archive is asked what should be there.

`scenario` sets a cast on stage and lets it play while `faults` happen; `actors` talk, `witnesses` look on as clients do
and as nobody else can; `truth` reads what the archives mean, and `judge` compares. `python -m tests.chaos` plays for as
long as one likes (`make soak`), tests/system/test_chaos.py for half a minute.
"""
