"""What `scripts/bench.py` measures with: processes, images of any size, the table and the plot."""
