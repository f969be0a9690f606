"""What one GPU does: rates beside what the device could do at best (`python scripts/gpu_check.py`)."""
